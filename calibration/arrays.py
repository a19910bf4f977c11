"""Rows of `.npy` and `.npz` files, read one at a time, so that memory holds one sample."""

from __future__ import annotations

import math
import tempfile
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, Problem

_SUFFIX: Final = ".npy"
_UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    RuntimeError,  # zipfile: an encrypted member, a compression that it does not know
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy: a damaged header, likewise
    TypeError,
)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """One array on disk: where its rows start and what they are."""

    file: IO[bytes]
    start: int
    dtype: np.dtype
    count: int
    shape: tuple[int, ...]

    def read(self, index: int) -> np.ndarray:
        size = self.dtype.itemsize * math.prod(self.shape)
        self.file.seek(self.start + index * size)
        content = self.file.read(size)
        return np.frombuffer(content, self.dtype).reshape(self.shape).copy()


class ArrayRows:
    """Arrays by name whose first axis is the sample; compressed ones are unpacked to a temp file.

    The temporary files live as long as this object.
    """

    def __init__(self, arrays: dict[str, _Rows], count: int, files: ExitStack) -> None:
        self._arrays = arrays
        self.count = count
        weakref.finalize(self, files.close)

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._arrays

    def read(self, name: str, index: int) -> np.ndarray:
        """One row, without the sample axis."""
        return self._arrays[name].read(index)


def open_arrays(path: Path, specs: Sequence[TensorSpec], *, label: str) -> ArrayRows:
    """Open the arrays of the inputs `specs`, and `label` where there is one.

    Raises:
        ConfigurationError: No such arrays, or of another shape or dtype; all of them at once.
    """
    with ExitStack() as files:
        try:
            arrays = _open_members(path, [*(spec.name for spec in specs), label], files)
        except _UNREADABLE as error:
            problem = Problem(
                where=str(path),
                what="the arrays cannot be read",
                found=str(error) or type(error).__name__,
                remedy="save them again with numpy.save or numpy.savez",
            )
            raise ConfigurationError(problem) from error
        if path.suffix == _SUFFIX and len(specs) == 1:
            arrays = {specs[0].name: next(iter(arrays.values()))}
        counts = {name: rows.count for name, rows in arrays.items()}
        problems = [
            *_problems(path, arrays, specs),
            *_label_problems(path, arrays.get(label), label),
            *_count_problems(path, counts),
        ]
        if problems:
            raise ConfigurationError(*problems)
        return ArrayRows(arrays, min(counts.values()), files.pop_all())


def _open_members(path: Path, names: Sequence[str], files: ExitStack) -> dict[str, _Rows]:
    if path.suffix == _SUFFIX:
        file = files.enter_context(path.open("rb"))
        return {path.stem: _open_rows(file, path.name)}
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.removesuffix(_SUFFIX): member for member in archive.namelist()}
        for name in names:
            if name in members:
                temporary = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
                unpacked = files.enter_context(temporary)
                with archive.open(members[name]) as packed:
                    while block := packed.read(1 << 20):
                        unpacked.write(block)
                unpacked.seek(0)
                arrays[name] = _open_rows(unpacked, name)
    if not arrays:
        problem = Problem(
            where=str(path),
            what="none of the arrays has the name of an input",
            expected=", ".join(names),
            found=", ".join(members) or "nothing",
            remedy="name the arrays as the inputs: numpy.savez(file, name=array)",
        )
        raise ConfigurationError(problem)
    return arrays


def _open_rows(file: IO[bytes], name: str) -> _Rows:
    """Read the header (NEP 1); object arrays, which are pickles, are refused."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject or not shape or min(shape) < 0 or (is_fortran and len(shape) > 1):
        message = f"{name}: dtype {dtype}, shape {shape}, Fortran order {is_fortran}"
        raise ValueError(message)
    start = file.tell()
    expected = math.prod(shape) * dtype.itemsize
    found = file.seek(0, 2) - start
    if found < expected:
        message = f"{name}: cut short at {found} of {expected} bytes"
        raise ValueError(message)
    return _Rows(file=file, start=start, dtype=dtype, count=shape[0], shape=tuple(shape[1:]))


def _problems(path: Path, arrays: dict[str, _Rows], specs: Sequence[TensorSpec]) -> list[Problem]:
    problems = []
    for spec in specs:
        where = f"{path.name}: {spec.name}"
        rows = arrays.get(spec.name)
        expected = f"{spec.dtype}{list(spec.shape[1:])} for each sample"
        if rows is None:
            problems.append(
                Problem(
                    where=where,
                    what="the array of an input is missing",
                    expected=expected,
                    found=", ".join(arrays),
                    remedy="name the arrays as the inputs",
                )
            )
        elif not _fits(rows, spec):
            problems.append(
                Problem(
                    where=where,
                    what="the array does not fit the input",
                    expected=expected,
                    found=f"{rows.dtype}{list(rows.shape)} for each sample",
                    remedy="save it as it goes into the model, the first axis being the sample",
                )
            )
    return problems


def _label_problems(path: Path, rows: _Rows | None, label: str) -> Iterator[Problem]:
    if rows is not None and (rows.dtype.kind not in "iu" or rows.shape):
        yield Problem(
            where=f"{path.name}: {label}",
            what="the labels are no class numbers",
            expected="one integer for each sample",
            found=f"{rows.dtype}{list(rows.shape)} for each sample",
            remedy="save the number of each sample's class, from 0",
        )


def _count_problems(path: Path, counts: Mapping[str, int]) -> Iterator[Problem]:
    if len(set(counts.values())) > 1:
        yield Problem(
            where=str(path),
            what="the arrays have different numbers of samples",
            found=", ".join(f"{name} {count}" for name, count in counts.items()),
            remedy="give every array one row for each sample",
        )


def _fits(rows: _Rows, spec: TensorSpec) -> bool:
    """As the input without its batch, or as raw uint8 pixels in HWC of an image input."""
    if spec.preprocess is not None and rows.dtype == np.uint8:
        return rows.shape == (*spec.preprocess.size, spec.preprocess.channels)
    return rows.dtype == np.dtype(spec.dtype) and rows.shape == spec.shape[1:]
