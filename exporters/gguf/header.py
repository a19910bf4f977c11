"""Header: what stands in a GGUF file before the weights, byte for byte as llama.cpp writes it.

Source: ggml/docs/gguf.md of llama.cpp, version 3; `gguf_writer_base` of ggml/src/gguf.cpp. All
numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from edgeship.exporters.gguf.blueprint import Metadata, MetadataValue, Scalar, ValueType
from edgeship.exporters.gguf.layout import Layout, Placement, padded

_MAGIC: Final = b"GGUF"
_VERSION: Final = 3
_CODES: Final = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


def encode_header(metadata: Metadata, layout: Layout) -> bytes:
    """Everything up to the data, padded to where it starts."""
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(layout.placements), len(metadata))]
    parts += [_text(key) + _typed(value) for key, value in metadata]
    parts += [_tensor(placement) for placement in layout.placements]
    raw = b"".join(parts)
    return raw.ljust(padded(len(raw)), b"\0")


def _typed(value: MetadataValue) -> bytes:
    """The number of the type, then the value."""
    number = struct.pack("<I", value.type)
    if value.type is not ValueType.ARRAY:
        assert not isinstance(value.value, tuple)  # MetadataValue: tuples are of arrays
        return number + _items(value.type, [value.value])
    assert isinstance(value.value, tuple)
    assert value.item is not None
    head = struct.pack("<IQ", value.item, len(value.value))
    return number + head + _items(value.item, value.value)


def _items(kind: ValueType, values: Sequence[Scalar]) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(map(_text, values))
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *values)


def _text(value: Scalar) -> bytes:
    """The length in bytes, then the bytes; no zero at the end."""
    assert isinstance(value, (str, bytes))
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _tensor(placement: Placement) -> bytes:
    """Name, axes with the row's length first, kind, offset."""
    axes = list(reversed(placement.plan.shape))
    while len(axes) > 1 and axes[-1] == 1:  # `ggml_n_dims` leaves them out
        axes.pop()
    return (
        _text(placement.plan.name)
        + struct.pack(f"<I{len(axes)}Q", len(axes), *axes)
        + struct.pack("<IQ", placement.kind.number, placement.offset)
    )
