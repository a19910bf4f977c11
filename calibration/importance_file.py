"""Importance file: an importance table in llama.cpp's GGUF format, which its tools read and write.

Source: tools/imatrix/imatrix.cpp, `save_imatrix`, and common/imatrix-loader.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeship.calibration.importance import ChannelSums, Importance
from edgeship.errors import ConfigurationError, ExportFailed, Problem

_TYPE: Final = "general.type"
_TYPE_VALUE: Final = "imatrix"
_DATASETS: Final = "imatrix.datasets"
_CHUNK_COUNT: Final = "imatrix.chunk_count"
_CHUNK_SIZE: Final = "imatrix.chunk_size"
_SQUARES: Final = ".in_sum2"
_COUNTS: Final = ".counts"
_MOST_TOKENS: Final = 1 << 24
"""Counts are float32, which holds every integer up to here."""


def write_importance(importance: Importance, destination: Path) -> None:
    """Write the file whole, or leave what is there; the same table gives the same bytes.

    Raises:
        ConfigurationError: No entry, or a sum or a count that float32 cannot hold.
        ExportFailed: The disk is full, or the directory cannot be written to.
    """
    _require_storable(importance, destination)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        _write(importance, partial)
        partial.replace(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        problem = Problem(
            where=str(destination),
            what="the importance matrix cannot be written",
            found=error.strerror,
            remedy="free space on the disk, or make the directory writable",
        )
        raise ExportFailed(problem) from error


def read_importance(file: Path) -> Importance:
    """Read a file of `write_importance` or of llama-imatrix.

    Raises:
        ConfigurationError: Another file, a damaged one, or one of a mixture of experts, which has
            a count for each expert.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    except (OSError, ValueError, KeyError, IndexError) as error:  # the reader raises each of them
        raise _unreadable(file, f"{type(error).__name__}: {error}") from error
    if fields.get(_TYPE) != _TYPE_VALUE:
        raise _unreadable(file, f"{_TYPE} {fields.get(_TYPE)!r}")
    entries = {
        name.removesuffix(_SQUARES): _entry(file, name.removesuffix(_SQUARES), tensors)
        for name in tensors
        if name.endswith(_SQUARES)
    }
    if not entries:
        raise _unreadable(file, "no entry")
    datasets: Any = fields.get(_DATASETS) or [""]
    return Importance(
        entries=entries,
        dataset=str(datasets[0]),
        chunks=int(fields.get(_CHUNK_COUNT, 0)),
        chunk_tokens=int(fields.get(_CHUNK_SIZE, 0)),
    )


def _write(importance: Importance, file: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(file, "")  # the name of an architecture would be written
    writer.add_string(_TYPE, _TYPE_VALUE)
    writer.add_array(_DATASETS, [importance.dataset])
    writer.add_uint32(_CHUNK_COUNT, importance.chunks)
    writer.add_uint32(_CHUNK_SIZE, importance.chunk_tokens)
    for name, sums in sorted(importance.entries.items()):
        writer.add_tensor(name + _SQUARES, sums.squares.astype(np.float32)[np.newaxis])
        writer.add_tensor(name + _COUNTS, np.array([[sums.tokens]], np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _entry(file: Path, name: str, tensors: Mapping[str, np.ndarray]) -> ChannelSums:
    squares = tensors[name + _SQUARES].astype(np.float64).reshape(-1)
    counts = tensors.get(name + _COUNTS)
    if counts is None or counts.size != 1:
        found = "none" if counts is None else f"{counts.size} counts"
        raise _unreadable(file, f"{name} with {found}")
    tokens = round(float(counts.reshape(-1)[0]))
    if tokens < 1 or not np.isfinite(squares).all() or (squares < 0).any():
        raise _unreadable(file, f"{name} with {tokens} tokens, or sums that are no squares")
    return ChannelSums(squares=squares, tokens=tokens)


def _require_storable(importance: Importance, destination: Path) -> None:
    found = None if importance.entries else "no entry"
    for name, sums in importance.entries.items():
        if sums.tokens > _MOST_TOKENS:
            found = f"{name} with {sums.tokens} tokens"
        elif not (sums.squares <= np.finfo(np.float32).max).all():
            found = f"{name} with a sum of {sums.squares.max():.3g}"
    if found is not None:
        problem = Problem(
            where=str(destination),
            what="the importance matrix cannot be stored",
            expected=f"entries of at most {_MOST_TOKENS} tokens, sums that float32 holds",
            found=found,
            remedy="check the float model's activations, or take less text",
        )
        raise ConfigurationError(problem)


def _unreadable(file: Path, found: str) -> ConfigurationError:
    problem = Problem(
        where=str(file),
        what="this is no importance matrix that can be used",
        expected="a GGUF file of llama-imatrix or of edgeship, one count for each weight",
        found=found[:200],
        remedy="make it again, for a model without experts",
    )
    return ConfigurationError(problem)
