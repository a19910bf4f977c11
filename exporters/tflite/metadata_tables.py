"""The TFLite metadata tables that edgeship fills in, as one flatbuffer.

Source of every table, slot and number: metadata_schema.fbs of tflite-support, schema version
1.5.0. A slot is a field's place in its table, from 0; a union takes two, the first for its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import flatbuffers
import numpy as np

IDENTIFIER: Final = b"M001"
MIN_PARSER_VERSION: Final = "1.0.0"
"""Of the schema that first had every field below (its "History"; metadata_version.cc)."""

_FEATURE, _IMAGE = 1, 2
"""ContentProperties."""
_NORMALIZATION: Final = 1
"""ProcessUnitOptions."""
_TENSOR_AXIS_LABELS: Final = 2
"""AssociatedFileType."""

Builder = Any
"""flatbuffers.Builder: the vendor has no types."""


class ColorSpace(IntEnum):
    """ColorSpaceType."""

    UNKNOWN = 0
    RGB = 1
    GRAYSCALE = 2


@dataclass(frozen=True, kw_only=True)
class TensorMetadata:
    """One input or output.

    Attributes:
        name: As apps are to call it.
        description: For people.
        color_space: Of an image; None: the tensor is no image.
        mean: Per channel, what is subtracted from pixels of 0..255; empty: nothing is said.
        std: Per channel, what they are then divided by; as many as `mean`.
        minimum: Per channel, the smallest value; empty: nothing is said.
        maximum: Per channel, the largest value; as many as `minimum`.
        labels: Name of the associated file with one line for each index of the last axis.
    """

    name: str
    description: str = ""
    color_space: ColorSpace | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """A model of one subgraph; inputs and outputs in the order of `SubGraph.inputs`, `.outputs`."""

    name: str
    description: str
    version: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


def metadata_buffer(metadata: ModelMetadata) -> bytes:
    """The tables as a flatbuffer with the identifier M001; equal tables give equal bytes."""
    builder = flatbuffers.Builder(1024)
    inputs = _vector(builder, [_tensor(builder, tensor) for tensor in metadata.inputs])
    outputs = _vector(builder, [_tensor(builder, tensor) for tensor in metadata.outputs])
    subgraph = _table(builder, {2: inputs, 3: outputs})
    root = _table(
        builder,
        {
            0: _text(builder, metadata.name),
            1: _text(builder, metadata.description),
            2: _text(builder, metadata.version),
            3: _vector(builder, [subgraph]),
            7: _text(builder, MIN_PARSER_VERSION),
        },
    )
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Builder, tensor: TensorMetadata) -> int:
    return _table(
        builder,
        {
            0: _text(builder, tensor.name),
            1: _text(builder, tensor.description),
            3: _content(builder, tensor.color_space),
            4: _normalization(builder, tensor),
            5: _statistics(builder, tensor),
            6: _labels(builder, tensor.labels),
        },
    )


def _content(builder: Builder, color_space: ColorSpace | None) -> int:
    if color_space is None:
        return _table(builder, {1: _table(builder, {})}, {0: _FEATURE})
    image = _table(builder, {}, {0: color_space})
    return _table(builder, {1: image}, {0: _IMAGE})


def _normalization(builder: Builder, tensor: TensorMetadata) -> int | None:
    if not tensor.mean:
        return None
    options = _table(builder, {0: _floats(builder, tensor.mean), 1: _floats(builder, tensor.std)})
    return _vector(builder, [_table(builder, {1: options}, {0: _NORMALIZATION})])


def _statistics(builder: Builder, tensor: TensorMetadata) -> int | None:
    if not tensor.minimum:
        return None
    maximum, minimum = _floats(builder, tensor.maximum), _floats(builder, tensor.minimum)
    return _table(builder, {0: maximum, 1: minimum})


def _labels(builder: Builder, name: str | None) -> int | None:
    if name is None:
        return None
    file = _table(builder, {0: _text(builder, name)}, {2: _TENSOR_AXIS_LABELS})
    return _vector(builder, [file])


def _table(
    builder: Builder, offsets: dict[int, int | None], codes: dict[int, int] | None = None
) -> int:
    """A table of offsets and of one-byte codes, by slot; what is None or 0 is left out."""
    codes = codes or {}
    builder.StartObject(max([*offsets, *codes], default=-1) + 1)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset or 0, 0)
    for slot, code in codes.items():
        builder.PrependUint8Slot(slot, code, 0)
    return int(builder.EndObject())


def _vector(builder: Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _floats(builder: Builder, values: Sequence[float]) -> int:
    return int(builder.CreateNumpyVector(np.array(values, np.float32)))


def _text(builder: Builder, text: str) -> int | None:
    return int(builder.CreateString(text)) if text else None
