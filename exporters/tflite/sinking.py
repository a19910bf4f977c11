"""Sinking: element-wise operators are computed before a TRANSPOSE, which moves behind them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.edits import add_tensor, constant_values, new_operator, set_constant
from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.moves import is_quick, make_moves, reshaped_tensor
from edgeship.exporters.tflite.views import View, places_of, runs_of, sizes_of, turned_axes, view_of
from edgeship.exporters.tflite.wiring import (
    insert_operator,
    is_output,
    is_weight,
    module_name,
    redirect_readers,
    shape_of,
)

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT
    from edgeship.exporters.tflite.views import Axes

# fmt: off
_UNARY: Final = frozenset({
    "ABS", "CAST", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG",
    "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "TANH",
})
_BINARY: Final = frozenset({
    "ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "PRELU", "SQUARED_DIFFERENCE", "SUB",
})
# fmt: on


def sink_moves(
    tables: ModelT, producers: dict[int, OperatorT], operator: OperatorT, active: set[int]
) -> bool:
    """Let an element-wise operator read the source of a view, and its readers a view of it.

    True where that changed the file.

    Args:
        tables: Changed.
        producers: Operators by what they give.
        operator: Any.
        active: Tensors whose views are to sink; gets the operator's output.
    """
    name, output = operator_name(tables, operator), int(operator.outputs[0])
    if (name not in _UNARY and name not in _BINARY) or is_output(tables, output):
        return False
    shape = shape_of(tables, output)
    views = [view_of(tables, producers, int(index)) for index in operator.inputs]
    turned = [view for view in views if view.turns and view.source in active]
    view = next((view for view in turned if sizes_of(view.axes) == shape), None)
    if view is None or (view.turns > 1 and not is_quick(runs_of(view.axes))):
        return False
    source_shape = shape_of(tables, view.source)
    inputs: list[int] | None = [view.source]
    if len(views) > 1:
        found = turned_axes(view.axes, source_shape)
        inputs = None if found is None else _turned_inputs(tables, operator, views, *found)
        source_shape = source_shape if found is None else found[0]
    if inputs is None:
        return False
    tensor = tables.subgraphs[0].tensors[output]
    after = add_tensor(tables, shape, tensor.type, f"{module_name(tables, operator)}/transpose")
    redirect_readers(tables, output, after)
    operator.inputs, tensor.shape, tensor.shapeSignature = inputs, source_shape, None
    moves = new_operator(tables, "TRANSPOSE", (output,), after)
    insert_operator(tables, moves, behind=operator)
    make_moves(tables, moves, View(source=output, axes=view.axes, turns=1))
    active.add(output)
    return True


def _turned_inputs(
    tables: ModelT, operator: OperatorT, views: list[View], shape: list[int], permutation: list[int]
) -> list[int] | None:
    """Operands for `operator` before the TRANSPOSE; None where one would need a TRANSPOSE.

    Args:
        tables: Get the RESHAPEs and constants that it takes.
        operator: With more than one operand, broadcast to `shape` permuted.
        views: Of its operands.
        shape: In which the source is read.
        permutation: That gives the operator's output today.
    """
    rank, made = len(shape), []
    for view in views:
        padded: Axes = ((),) * (rank - len(view.axes)) + view.axes
        axes = tuple(padded[permutation.index(place)] for place in range(rank))
        made.append(axes)
        if len(runs_of(axes)) > 1 and not is_weight(tables, view.source):
            return None
    return [
        _operand(tables, operator, view.source, axes)
        for view, axes in zip(views, made, strict=True)
    ]


def _operand(tables: ModelT, operator: OperatorT, index: int, axes: Axes) -> int:
    """The tensor in another shape, a constant in another order as well."""
    tensor, shape = tables.subgraphs[0].tensors[index], sizes_of(axes)
    if math.prod(shape) == 1 and len(shape_of(tables, index)) <= len(shape):
        return index
    if len(runs_of(axes)) <= 1 and not is_weight(tables, index):
        return reshaped_tensor(tables, operator, index, shape)
    values = constant_values(tables, tensor).ravel()
    made = add_tensor(tables, shape, tensor.type, f"{module_name(tables, operator)}/constant")
    set_constant(tables, tables.subgraphs[0].tensors[made], values[places_of(axes)])
    return made
