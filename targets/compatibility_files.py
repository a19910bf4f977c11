"""Files: what the header of a model says that a runtime must know, read without its package."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edgeship.errors import IntegrityRefused, Problem
from edgeship.vocabulary import Format

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf's encoding
_IR_VERSION, _OPSET_IMPORT = 1, 8  # fields of ModelProto (onnx.proto)
_DOMAIN, _VERSION = 1, 2  # fields of OperatorSetIdProto
_LARGEST_IMPORT: Final = 1 << 16
"""Bytes: the name of a domain and a number; more is no ONNX file."""

_GGUF_MAGIC: Final = b"GGUF"
_GGUF_VERSION: Final = 3
_STRING, _ARRAY = 8, 9
_WIDTHS: Final[Mapping[int, int]] = {
    **{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1},
    **{10: 8, 11: 8, 12: 8},
}
"""Bytes of a metadata value by its type (ggml docs/gguf.md, "File Structure")."""
_TYPES: Final[Mapping[int, str]] = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1"},
    **{10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K"},
    **{16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S"},
    **{22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"},
    **{29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0"},
}
"""Of tensors (ggml.h, enum ggml_type); numbers that are missing were withdrawn."""


@dataclass(frozen=True, kw_only=True)
class FileNeeds:
    """What one model file asks of a runtime; None, or empty, is nothing of that kind.

    Attributes:
        onnx_ir: Version of the file format.
        onnx_opset: Version of the operators of the default domain.
        gguf_version: Of the file format.
        gguf_types: Of its tensors, by name, sorted; "type 41" where we know no name.
        unknown_types: Those of `gguf_types` that no llama.cpp we know of reads.
    """

    onnx_ir: int | None = None
    onnx_opset: int | None = None
    gguf_version: int | None = None
    gguf_types: tuple[str, ...] = ()
    unknown_types: tuple[str, ...] = ()


def read_file_needs(file: Path, format: Format) -> FileNeeds:
    """Read the header of a model; the operator versions of TFLite are in `requires.any_of`.

    Raises:
        IntegrityRefused: No file of this format, or one that ends too early.
    """
    try:
        match format:
            case Format.ONNX:
                with file.open("rb") as stream:
                    return _onnx_needs(stream)
            case Format.GGUF:
                with file.open("rb") as stream:
                    return _gguf_needs(_Reader(stream, file.stat().st_size))
            case Format.TFLITE | Format.TENSORRT:
                return FileNeeds()
    except (OSError, ValueError, struct.error) as error:
        problem = Problem(
            where=str(file),
            what=f"this is no {format} file that can be read",
            found=str(error),
            remedy="run `edgeship build` again",
        )
        raise IntegrityRefused(problem) from error


def _onnx_needs(stream: BinaryIO) -> FileNeeds:
    ir, opset = None, None
    for field, value in _fields(stream):
        if field == _IR_VERSION and isinstance(value, int):
            ir = value
        elif field == _OPSET_IMPORT and isinstance(value, bytes):
            opset = _default_opset(value) or opset
    if ir is None or opset is None:
        message = "it names no IR version and operator set"
        raise ValueError(message)
    return FileNeeds(onnx_ir=ir, onnx_opset=opset)


def _default_opset(message: bytes) -> int | None:
    """Version of an OperatorSetIdProto whose domain is the default one."""
    values = dict(_fields(io.BytesIO(message), is_whole=True))
    version = values.get(_VERSION)
    return version if not values.get(_DOMAIN) and isinstance(version, int) else None


def _fields(stream: BinaryIO, *, is_whole: bool = False) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a protobuf message; of the root message only small ones are read, the graph not."""
    end = stream.seek(0, 2)
    stream.seek(0)
    while stream.tell() < end:
        key = _varint(stream)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            yield field, _varint(stream)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length = _varint(stream)
        if length is None or stream.tell() + length > end:
            message = "its fields are not those of protobuf, or it ends too early"
            raise ValueError(message)
        if wire == _BYTES and (is_whole or field == _OPSET_IMPORT) and length <= _LARGEST_IMPORT:
            yield field, stream.read(length)
        else:
            stream.seek(length, 1)


def _varint(stream: BinaryIO) -> int:
    number = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            message = "it ends too early"
            raise ValueError(message)
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return number
    message = "it holds a number of more than 64 bits"
    raise ValueError(message)


class _Reader:
    """Little-endian numbers and texts of a GGUF file, none of which lies behind its end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def read(self, length: int) -> bytes:
        content = self._stream.read(length) if length <= self._size else b""
        if len(content) < length:
            message = "it ends too early"
            raise ValueError(message)
        return content

    def number(self, width: int) -> int:
        return int.from_bytes(self.read(width), "little")

    def skip_text(self) -> None:
        self.read(self.number(8))

    def skip_value(self, kind: int, *, depth: int = 0) -> None:
        if kind == _STRING:
            self.skip_text()
        elif kind == _ARRAY and depth < 4:
            inner, count = self.number(4), self.number(8)
            if inner in _WIDTHS:
                self.read(_WIDTHS[inner] * count)
            else:
                for _ in range(count):
                    self.skip_value(inner, depth=depth + 1)
        elif kind in _WIDTHS:
            self.read(_WIDTHS[kind])
        else:
            message = f"it holds metadata of type {kind}"
            raise ValueError(message)


def _gguf_needs(reader: _Reader) -> FileNeeds:
    if reader.read(4) != _GGUF_MAGIC:
        message = "it does not begin with GGUF"
        raise ValueError(message)
    version = reader.number(4)
    if version != _GGUF_VERSION:
        message = f"GGUF version {version}, not {_GGUF_VERSION}"
        raise ValueError(message)
    tensors, pairs = reader.number(8), reader.number(8)
    for _ in range(pairs):
        reader.skip_text()
        reader.skip_value(reader.number(4))
    types = {_tensor_type(reader) for _ in range(tensors)}
    names = {number: _TYPES.get(number, f"type {number}") for number in types}
    return FileNeeds(
        gguf_version=version,
        gguf_types=tuple(sorted(names.values())),
        unknown_types=tuple(sorted(name for number, name in names.items() if number not in _TYPES)),
    )


def _tensor_type(reader: _Reader) -> int:
    reader.skip_text()
    reader.read(8 * reader.number(4))
    number = reader.number(4)
    reader.read(8)
    return number
