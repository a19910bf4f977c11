"""Masks: what keeps padding out of attention, in forms that old runtimes and integers have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import Range, Ranges
from edgeship.calibration.statistics import SENTINEL
from edgeship.exporters.tflite.edits import add_shape, constant_values, set_constant, set_operator
from edgeship.exporters.tflite.flatbuffer import is_constant, operator_name, tensor_name, type_name

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT

_SOFTMAX_STEPS: Final = 256
"""int8 SOFTMAX gives multiples of 1/256 (TFLite 8-bit quantization specification)."""
_CHOOSING: Final = frozenset({"SELECT", "SELECT_V2", "MAXIMUM"})
_MOVING: Final = frozenset(
    ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "SLICE", "STRIDED_SLICE")
)
_CARRYING: Final = _CHOOSING | _MOVING | {"ADD", "MUL"}
"""Operators that give a sentinel where an operand holds one."""


def reshape_gathers(tables: ModelT) -> None:
    """Make each GATHER_ND that takes every element in order a RESHAPE; modifies `tables`.

    transformers indexes the attention mask so (masking_utils.py, padding_mask_function), which
    becomes GATHER_ND of BOOL: its version 5, which tflite_runtime 2.14 does not have.
    """
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = tables.subgraphs
    for operator in graph.operators:
        if operator_name(tables, operator) != "GATHER_ND" or not _keeps_order(tables, operator):
            continue
        output = graph.tensors[operator.outputs[0]]
        shape = [int(size) for size in output.shape]
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        inputs = (operator.inputs[0], add_shape(tables, shape, f"{tensor_name(output)}_shape"))
        set_operator(tables, operator, "RESHAPE", inputs, ("ReshapeOptions", options))


def _keeps_order(tables: ModelT, operator: OperatorT) -> bool:
    import numpy as np

    graph = tables.subgraphs[0]
    source, indices = (graph.tensors[index] for index in operator.inputs)
    if not is_constant(tables, indices) or source.shape is None:
        return False
    shape = tuple(int(size) for size in source.shape)
    places = constant_values(tables, indices)
    count = math.prod(shape)
    if places.ndim < 1 or places.shape[-1] != len(shape) or places.size != count * len(shape):
        return False
    every = np.stack(np.unravel_index(np.arange(count), shape), axis=-1)
    return bool(np.array_equal(places.reshape(every.shape), every))


def finite_masks(tables: ModelT, ranges: Ranges) -> Ranges:
    """Replace sentinels (-3.4e38) in constants by a value that int8 can hold; modifies `tables`.

    A sentinel would set the scale of every tensor that it reaches. The value is so low that what
    is masked saturates at the low end of the softmax's input, and that end lies far enough below
    everything that was seen there: all that is masked weighs less than half a step of the
    softmax's output, whatever the row.

    Constants decide, not the ranges: representative data without padding shows no sentinel.

    Args:
        tables: Of the float file.
        ranges: Of its tensors, sentinels left out of them.

    Returns:
        The ranges with those of the tensors that carry the mask; none holds sentinels any more.
    """
    (graph,) = tables.subgraphs
    sentinels = [
        index for index, tensor in enumerate(graph.tensors) if _holds_sentinel(tables, index)
    ]
    if not sentinels:
        return ranges
    carriers = _carriers(tables, sentinels)
    lows, mask = _low_ends(tables, carriers, ranges)
    for index in sentinels:
        values = constant_values(tables, graph.tensors[index])
        values[values <= -SENTINEL] = mask
        set_constant(tables, graph.tensors[index], values)
    changed = dict(ranges.by_name)
    for index in carriers:
        name = tensor_name(graph.tensors[index])
        high = ranges.by_name[name].high if name in ranges.by_name else 0.0
        changed[name] = Range(low=lows.get(index, mask), high=max(high, 0.0))
    return replace(ranges, by_name=changed, masks=())


def _holds_sentinel(tables: ModelT, index: int) -> bool:
    tensor = tables.subgraphs[0].tensors[index]
    if type_name(tensor) != "FLOAT32" or not is_constant(tables, tensor):
        return False
    return bool((constant_values(tables, tensor) <= -SENTINEL).any())


def _carriers(tables: ModelT, sentinels: list[int]) -> dict[int, OperatorT]:
    """Activations that hold sentinels where something is masked, each with what gives it."""
    carriers: dict[int, OperatorT] = {}
    for operator in tables.subgraphs[0].operators:
        carries = any(index in carriers or index in sentinels for index in operator.inputs)
        if carries and operator_name(tables, operator) in _CARRYING:
            carriers[int(operator.outputs[0])] = operator
    return carriers


def _low_ends(
    tables: ModelT, carriers: dict[int, OperatorT], ranges: Ranges
) -> tuple[dict[int, float], float]:
    """Low ends of the softmaxes' inputs, by tensor; and the mask that saturates at all of them."""
    (graph,) = tables.subgraphs
    lows: dict[int, float] = {}
    mask = 0.0
    for operator in graph.operators:
        scores = int(operator.inputs[0]) if len(operator.inputs) else -1
        if operator_name(tables, operator) != "SOFTMAX" or scores not in carriers:
            continue
        tensor = graph.tensors[scores]
        if tensor_name(tensor) not in ranges.by_name:
            continue  # nothing but sentinels was seen
        low = ranges.by_name[tensor_name(tensor)].low - _margin(int(tensor.shape[-1]))
        path = _path_back(tables, carriers, scores)
        lows |= dict.fromkeys(path, low)
        mask = min(mask, low - _highest_addend(graph, carriers, path[-1], ranges))
    if not lows:  # masked for a maximum, say: what was seen lowest changes none
        names = [tensor_name(graph.tensors[index]) for index in carriers]
        mask = min(
            (ranges.by_name[name].low for name in names if name in ranges.by_name), default=mask
        )
    return lows, mask


def _margin(positions: int) -> float:
    """How far below a row's maximum `positions` scores together weigh less than half a step."""
    return math.log(2 * _SOFTMAX_STEPS * positions)


def _path_back(tables: ModelT, carriers: dict[int, OperatorT], index: int) -> list[int]:
    """From a softmax's input back to where the mask was put onto the scores."""
    path = [index]
    while operator_name(tables, carriers[path[-1]]) in _MOVING:
        source = int(carriers[path[-1]].inputs[0])
        if source not in carriers:
            break
        path.append(source)
    return path


def _highest_addend(
    graph: SubGraphT, carriers: dict[int, OperatorT], index: int, ranges: Ranges
) -> float:
    """The highest value that the mask is added to, masked positions included; 0 if to none."""
    names = [
        tensor_name(graph.tensors[operand])
        for operand in carriers[index].inputs
        if operand >= 0 and operand not in carriers
    ]
    return max((ranges.by_name[name].high for name in names if name in ranges.by_name), default=0.0)
