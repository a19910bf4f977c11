"""Columns: of a layer's weight, put into the order in which a view's source has the features."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeship.exporters.tflite.edits import add_tensor, constant_values, set_constant
from edgeship.exporters.tflite.flatbuffer import operator_name, tensor_name
from edgeship.exporters.tflite.moves import make_reshape
from edgeship.exporters.tflite.views import MOVES, places_of, view_of
from edgeship.exporters.tflite.wiring import is_output, is_weight, readers_of, shape_of

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT
    from edgeship.exporters.tflite.views import Axes


def permute_columns(tables: ModelT, producers: dict[int, OperatorT], operator: OperatorT) -> bool:
    """Flatten a view's source instead, where only layers with constant weights read the result.

    True where that changed the file.
    """
    if operator_name(tables, operator) not in MOVES:
        return False
    output = int(operator.outputs[0])
    view, shape = view_of(tables, producers, output), shape_of(tables, output)
    if (
        not view.turns
        or is_output(tables, output)
        or math.prod(shape) != max(shape[-1:], default=0)
    ):
        return False
    readers = readers_of(tables, output)
    if not all(_is_plain_layer(tables, item, output, shape[-1]) for item in readers):
        return False
    for weight in dict.fromkeys(int(item.inputs[1]) for item in readers):
        users = [item for item in readers if item.inputs[1] == weight]
        _permute_weight(tables, users, weight, view.axes)
    make_reshape(tables, operator, view.source)
    return True


def _is_plain_layer(tables: ModelT, operator: OperatorT, index: int, width: int) -> bool:
    if operator_name(tables, operator) != "FULLY_CONNECTED" or operator.inputs[0] != index:
        return False
    weight = int(operator.inputs[1])
    return is_weight(tables, weight) and shape_of(tables, weight)[-1] == width


def _permute_weight(tables: ModelT, users: list[OperatorT], index: int, axes: Axes) -> None:
    """Put a weight's columns into the order of a view's source; others keep the weight."""
    import numpy as np

    (graph,) = tables.subgraphs
    tensor = graph.tensors[index]
    values = constant_values(tables, tensor)
    permuted = np.empty_like(values)
    permuted[:, places_of(axes)] = values
    if len(users) < len(readers_of(tables, index)):
        copied = add_tensor(tables, tensor.shape, tensor.type, tensor_name(tensor))
        tensor = graph.tensors[copied]
        for item in users:
            item.inputs = [item.inputs[0], copied, *item.inputs[2:]]
    set_constant(tables, tensor, permuted)
