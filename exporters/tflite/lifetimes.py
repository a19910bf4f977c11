"""Lifetimes: no tensor is read after the last use of a RESHAPE of it.

TFLite Runtime 2.14 gives wrong values for a tensor that is read again after everything that reads a
RESHAPE of it: without a word (measured: x * rsqrt(mean(x * x)) of int8[128, 384], where the square
reads a RESHAPE of x and the product x itself, has a cosine of 0.01 with LiteRT 2.3.0; where the
product reads the RESHAPE too, 1.0). The two share memory there, and it ends with the RESHAPE's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.moves import reshaped_tensor
from edgeship.exporters.tflite.wiring import is_output, shape_of

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT

_RESHAPE: Final = "RESHAPE"
_BINARY: Final = frozenset({"ADD", "MUL", "SUB", "DIV", "MAXIMUM", "MINIMUM"})


def outlive_sources(tables: ModelT) -> None:
    """Let what reads a tensor late read the RESHAPE of it instead, which gives the same values."""
    for operator in list(tables.subgraphs[0].operators):
        if operator_name(tables, operator) == _RESHAPE:
            source, output = int(operator.inputs[0]), int(operator.outputs[0])
            for reader in _late_readers(tables, operator, source, output):
                _redirect(tables, reader, source, output)


def _late_readers(tables: ModelT, reshape: OperatorT, source: int, output: int) -> list[OperatorT]:
    """Operators behind a RESHAPE that read its source after all that read its output."""
    if is_output(tables, output):  # which lives to the end
        return []
    present = tables.subgraphs[0].operators
    (start,) = (place for place, item in enumerate(present) if item is reshape)
    behind = present[start + 1 :]
    last = max(
        (place for place, item in enumerate(behind) if output in list(item.inputs)), default=-1
    )
    return [item for item in behind[last + 1 :] if source in list(item.inputs)]


def _redirect(tables: ModelT, reader: OperatorT, source: int, output: int) -> None:
    name = operator_name(tables, reader)
    inputs = [int(index) for index in reader.inputs]
    taken = [output if index == source else index for index in inputs]
    is_free = name == _RESHAPE or (
        name in _BINARY
        and _broadcast([shape_of(tables, index) for index in taken])
        == shape_of(tables, int(reader.outputs[0]))
    )
    if not is_free:
        same = reshaped_tensor(tables, reader, output, shape_of(tables, source))
        taken = [same if index == source else index for index in inputs]
    reader.inputs = taken


def _broadcast(shapes: list[list[int]]) -> list[int] | None:
    """The shape that two operands give; None where they do not fit."""
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    if any(len({size for size in sizes if size != 1}) > 1 for sizes in zip(*padded, strict=True)):
        return None
    return [max(sizes) for sizes in zip(*padded, strict=True)]
