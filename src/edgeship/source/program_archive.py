"""Program archive: a `.pt2` file, held against what is harmless before torch loads any of it.

Source: torch 2.13, torch/export/pt2_archive/_package.py. `torch.export.load` unpickles constants
that are objects (`_load_constants`) and weights that say so (`_load_state_dict`), loads compiled
libraries (`_load_aoti`), and unpickles sample inputs with `weights_only=True` first, but without
it after that has failed. Whatever leads there is refused here, and so is what `program_text` finds.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edgeship.errors import IntegrityRefused, Problem
from edgeship.source.archive import check_archive, damaged, is_archive
from edgeship.source.program_text import text_problems
from edgeship.source.tensor_name import shown_name
from edgeship.source.torch_file import load_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT: Final = ("archive_format", b"pt2")
_MODEL: Final = "models/model.json"
_PAYLOADS: Final = (
    ("data/weights/model_weights_config.json", "data/weights/", "weight_"),
    ("data/constants/model_constants_config.json", "data/constants/", "tensor_"),
)
"""Table of tensors, where they are, and how the names of plain ones begin."""
_PICKLES: Final = re.compile(r"data/(sample_inputs|weights|constants)/model\.pt")
"""The last two as torch 2.8 wrote them."""
_PLAIN: Final = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|extra/.*"
)
_TEXT_LIMIT_BYTES: Final = 256 << 20
"""A choice: MiniLM's has 0.5 MB, stack traces included."""
_REMEDY: Final = "export the module again on a machine that you trust, with torch.export.save"


class _Reader(Protocol):
    """torch's own reader: what it finds under a name is what the loader will find."""

    def get_all_records(self) -> Sequence[str]: ...

    def get_record(self, name: str) -> bytes: ...

    def get_record_size(self, name: str) -> int: ...


def check_program(path: Path) -> None:
    """Refuse a program file of which loading would run anything but the loader.

    Raises:
        ConfigurationError: The file is damaged, or no program.
        IntegrityRefused: It holds objects, compiled code, or text that torch would evaluate.
    """
    try:
        if not is_archive(path):
            raise damaged(path, "no archive, as torch.export.save writes it")
        check_archive(path)
        reader = _open(path)
        problems = list(_problems(path, reader))
    except (OSError, RuntimeError, ValueError, RecursionError) as error:  # torch's, json's
        raise damaged(path, str(error).partition("\n")[0] or type(error).__name__) from error
    if problems:
        raise IntegrityRefused(*problems)


def _open(path: Path) -> _Reader:
    import torch

    reader: _Reader = torch._C.PyTorchFileReader(str(path))
    if _FORMAT[0] not in reader.get_all_records() or reader.get_record(_FORMAT[0]) != _FORMAT[1]:
        raise damaged(path, "an archive, but no program of torch 2.8 or later")
    return reader


def _problems(path: Path, reader: _Reader) -> Iterator[Problem]:
    names = reader.get_all_records()
    if _MODEL not in names:
        raise damaged(path, f"no {_MODEL} in it")
    strange = [
        name for name in names if not _PLAIN.fullmatch(name) and not _PICKLES.fullmatch(name)
    ]
    if strange:
        yield Problem(
            where=str(path),
            what="the archive holds what torch would unpickle or run; nothing of it ran",
            expected="a graph and plain tensors",
            found=", ".join(map(shown_name, strange[:5])),
            remedy=_REMEDY,
        )
    for name in names:
        if _PICKLES.fullmatch(name) and reader.get_record_size(name):
            _check_pickle(path, name, reader.get_record(name))
    for table, directory, prefix in _PAYLOADS:
        if table in names:
            yield from _payload_problems(path, reader, table, directory, prefix)
    yield from text_problems(_json(reader, _MODEL), where=str(path))


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    """Load it as torch will first; that it succeeds keeps torch from the second, unsafe way."""
    inner = path / name  # no such file: a place to name
    load_plain(io.BytesIO(content), inner)


def _payload_problems(
    path: Path, reader: _Reader, table: str, directory: str, prefix: str
) -> Iterator[Problem]:
    """Tensors that would be unpickled, or that are larger than what the archive has of them."""
    config = _json(reader, table)
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise damaged(path, f"{table} is no table of tensors")
    pickled, oversized = [], []
    for name, entry in entries.items():
        file = entry.get("path_name") if isinstance(entry, dict) else None
        plain = re.fullmatch(rf"{prefix}\d+", file) if isinstance(file, str) else None
        if not isinstance(entry, dict) or plain is None or entry.get("use_pickle") is not False:
            pickled.append(name)
        elif _claims_more(entry, reader.get_record_size(f"{directory}{file}")):
            oversized.append(name)
    for what, names in (
        ("constants or weights in the archive are pickled objects; none was loaded", pickled),
        ("tensors claim more elements than the archive holds", oversized),
    ):
        if names:
            yield Problem(
                where=str(path),
                what=what,
                expected="plain tensors",
                found=", ".join(map(shown_name, names[:5])),
                remedy=_REMEDY,
            )


def _claims_more(entry: Mapping[str, object], size_bytes: int) -> bool:
    """Whether a tensor has elements where there are no bytes: torch would make them of zeros."""
    meta = entry.get("tensor_meta")
    sizes = meta.get("sizes") if isinstance(meta, dict) else None
    if not isinstance(sizes, list):
        return True
    counts = [size.get("as_int") if isinstance(size, dict) else None for size in sizes]
    if not all(type(count) is int and count >= 0 for count in counts):
        return True
    return size_bytes == 0 and 0 not in counts


def _json(reader: _Reader, name: str) -> object:
    if reader.get_record_size(name) > _TEXT_LIMIT_BYTES:
        message = f"{name} is larger than {_TEXT_LIMIT_BYTES} bytes"
        raise ValueError(message)
    return json.loads(reader.get_record(name))
