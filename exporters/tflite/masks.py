"""Masks: what keeps padding out of attention, in forms that old runtimes and integers have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import Range, Ranges
from edgeship.calibration.statistics import SENTINEL
from edgeship.exporters.tflite.edits import add_shape, constant_values, set_constant, set_operator
from edgeship.exporters.tflite.flatbuffer import is_constant, operator_name, tensor_name, type_name
from edgeship.exporters.tflite.mask_constants import (
    CHOOSING,
    MASKING,
    MOVING,
    unmasked_ranges,
    weakest_mask,
)

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT

_SOFTMAX_STEPS: Final = 256
"""int8 SOFTMAX gives multiples of 1/256 (TFLite 8-bit quantization specification)."""
_PUTTING: Final = CHOOSING | {"MAXIMUM", "ADD"}
_CARRYING: Final = _PUTTING | MOVING | {"MUL"}
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
    """Replace what masks in constants by a value that int8 can hold; modifies `tables`.

    A sentinel (-3.4e38, or -inf) would set the scale of every tensor that it reaches, and so would
    -10,000. The value is so low that what is masked saturates at the low end of the softmax's
    input, and that end lies far enough below everything that was seen there: all that is masked
    weighs less than half a step of the softmax's output, whatever the row.

    Constants decide, not the ranges: representative data without padding shows no mask.

    Args:
        tables: Of the float file.
        ranges: Of its tensors, sentinels left out of them.

    Returns:
        The ranges with those of the tensors that carry the mask; none holds sentinels any more.
    """
    (graph,) = tables.subgraphs
    sentinels = [index for index in range(len(graph.tensors)) if _holds_sentinel(tables, index)]
    finite, unmasked = unmasked_ranges(tables, ranges)
    finite = [index for index in finite if index not in sentinels]
    if finite:
        carriers = _carriers(tables, [*sentinels, *finite])
        lows, mask = _low_ends(tables, carriers, unmasked)
        if lows and all(weakest_mask(tables, index) <= mask for index in finite):
            _set_masks(tables, sentinels, -SENTINEL, mask)
            _set_masks(tables, finite, MASKING, mask)
            return _carrying(tables, carriers, unmasked, lows, mask)
    if not sentinels:
        return ranges
    carriers = _carriers(tables, sentinels)
    lows, mask = _low_ends(tables, carriers, ranges)
    _set_masks(tables, sentinels, -SENTINEL, mask)
    return _carrying(tables, carriers, ranges, lows, mask)


def _set_masks(tables: ModelT, constants: list[int], highest: float, mask: float) -> None:
    (graph,) = tables.subgraphs
    for index in constants:
        values = constant_values(tables, graph.tensors[index])
        values[values <= highest] = mask
        set_constant(tables, graph.tensors[index], values)


def _carrying(
    tables: ModelT,
    carriers: dict[int, OperatorT],
    ranges: Ranges,
    lows: dict[int, float],
    mask: float,
) -> Ranges:
    (graph,) = tables.subgraphs
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
        path = _path_back(tables, carriers, scores, low, ranges)
        lows |= path
        needed = (end - _highest_addend(tables, carriers[i], ranges) for i, end in path.items())
        mask = min(mask, *needed)
    if not lows:  # masked for a maximum, say: what was seen lowest changes none
        names = [tensor_name(graph.tensors[index]) for index in carriers]
        mask = min(
            (ranges.by_name[name].low for name in names if name in ranges.by_name), default=mask
        )
    return lows, mask


def _margin(positions: int) -> float:
    """How far below a row's maximum `positions` scores together weigh less than half a step."""
    return math.log(2 * _SOFTMAX_STEPS * positions)


def _path_back(
    tables: ModelT, carriers: dict[int, OperatorT], index: int, low: float, ranges: Ranges
) -> dict[int, float]:
    """From a softmax's input back to where a mask was first put onto the scores: low ends."""
    (graph,) = tables.subgraphs
    path: dict[int, float] = {}
    following = index
    while following in carriers:
        index = following
        path[index] = low
        operator = carriers[index]
        name, sources = operator_name(tables, operator), [int(i) for i in operator.inputs]
        scaled = _scaled(tables, sources) if name == "MUL" else None
        if name in MOVING:
            following = sources[0]
        elif scaled is not None:
            following, factor = scaled
            low /= factor
        elif name == "ADD":
            # of two that are masked, scores have other values than 0 too
            known = [(i, ranges.by_name.get(tensor_name(graph.tensors[i]))) for i in sources]
            scores = [i for i, item in known if i in carriers and item and item.low < item.high]
            following = scores[0] if len(scores) == 1 else -1
        else:
            break
    return path


def _scaled(tables: ModelT, sources: list[int]) -> tuple[int, float] | None:
    """Of a product by a positive number: what it scales, and the number."""
    for source, other in (sources, sources[::-1]):
        tensor = tables.subgraphs[0].tensors[other]
        if type_name(tensor) == "FLOAT32" and is_constant(tables, tensor):
            values = constant_values(tables, tensor)
            if values.size == 1 and 0 < values.min() < SENTINEL:
                return source, float(values.min())
    return None


def _highest_addend(tables: ModelT, operator: OperatorT, ranges: Ranges) -> float:
    """The highest value that a mask is added to or put in place of; 0 if there is none."""
    if operator_name(tables, operator) not in _PUTTING:
        return 0.0
    (graph,) = tables.subgraphs
    highest = 0.0
    for index in (int(index) for index in operator.inputs if index >= 0):
        tensor = graph.tensors[index]
        if tensor_name(tensor) in ranges.by_name:
            highest = max(highest, ranges.by_name[tensor_name(tensor)].high)
        elif type_name(tensor) == "FLOAT32" and is_constant(tables, tensor):
            highest = max(highest, float(constant_values(tables, tensor).max(initial=0.0)))
    return highest
