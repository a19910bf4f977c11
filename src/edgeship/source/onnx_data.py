"""ONNX data: the files beside an `.onnx` file in which it keeps tensors, found without onnx.

Source: onnx 1.23, onnx/onnx.proto (field numbers) and docs/ExternalData.md; protobuf, "Encoding".
Only the messages on the way to a tensor are read; weights inside of the file are skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from edgeship.errors import ConfigurationError, IntegrityRefused, Problem
from edgeship.source.archive import damaged
from edgeship.source.tensor_name import shown_name

_TENSOR: Final = "tensor"
_FIELDS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""By message, the fields that are messages on the way to a tensor."""
_EXTERNAL_DATA: Final = 13
"""TensorProto.external_data, entries of key = 1 and value = 2."""
_DEPTH_LIMIT: Final = 64
"""A choice: graphs in attributes of nodes in graphs; a recursion of 16 is unheard of."""
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Wire types I64 and I32."""


def external_files(path: Path) -> list[Path]:
    """The files with tensors of the ONNX file `path`, sorted, each once; imports no package.

    Raises:
        ConfigurationError: The file cannot be read, or a file that it names is missing.
        IntegrityRefused: It names one that is not inside of its own directory.
    """
    try:
        if path.stat().st_size == 0:
            raise damaged(path, "an empty file")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            locations = set(_locations(view, 0, len(view), "model", 0))
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    except (ValueError, IndexError) as error:
        raise damaged(path, f"no ONNX: {error}") from error
    return [_checked(path, location) for location in sorted(locations)]


def _checked(path: Path, location: str) -> Path:
    """The file at a location, which is relative and leads, links resolved, nowhere else."""
    where = f"{path}: {shown_name(location)}"
    pure = PurePosixPath(location)
    is_inside = bool(location) and location.isprintable() and not pure.is_absolute()
    if is_inside and ".." not in pure.parts and "\\" not in location and ":" not in location:
        file = path.parent / pure
        home = path.parent.resolve()
        if file.resolve().is_relative_to(home):
            if file.is_file():
                return file
            problem = Problem(
                where=where,
                what="a file with tensors of the model is missing",
                expected="beside the .onnx file",
                remedy="copy it there, or save the model in one file",
            )
            raise ConfigurationError(problem)
    problem = Problem(
        where=where,
        what="the model keeps tensors in a file outside of its directory; it was not read",
        expected="a file beside the .onnx file, or below",
        remedy="save the model again, with its data beside it",
    )
    raise IntegrityRefused(problem)


def _locations(view: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """Locations in the message of that kind at `start`."""
    if depth > _DEPTH_LIMIT:
        message = f"messages are nested more than {_DEPTH_LIMIT} deep"
        raise ValueError(message)
    inner = _FIELDS.get(kind, {})
    for number, begin, stop in _messages(view, start, end):
        if kind == _TENSOR and number == _EXTERNAL_DATA:
            entry = {field: view[first:last] for field, first, last in _messages(view, begin, stop)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode()
        elif number in inner:
            yield from _locations(view, begin, stop, inner[number], depth + 1)


def _messages(view: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field with a length; other fields are skipped."""
    at = start
    while at < end:
        tag, at = _varint(view, at, end)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(view, at, end)
            if length > end - at:
                message = f"a field at byte {at} is longer than what is left"
                raise ValueError(message)
            yield tag >> 3, at, at + length
            at += length
        elif wire == 0:
            _, at = _varint(view, at, end)
        elif wire in _FIXED_BYTES:
            at += _FIXED_BYTES[wire]
        else:
            message = f"wire type {wire} at byte {at}"
            raise ValueError(message)
    if at > end:
        message = f"a field ends at byte {at}, after its message"
        raise ValueError(message)


def _varint(view: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    message = f"no number at byte {at}"
    raise ValueError(message)
