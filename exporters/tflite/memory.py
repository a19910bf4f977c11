"""Memory: what a runtime holds while it runs a .tflite file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgeship.exporters.tflite.flatbuffer import ModelT, SubGraphT, is_constant, type_name

_BYTES: Final = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 2),
    **dict.fromkeys(("INT64", "UINT64", "FLOAT64", "COMPLEX64"), 8),
    "COMPLEX128": 16,
}
"""Of one element; every other type has 4."""


def activation_bytes(model: ModelT) -> int:
    """The most bytes of activations that are alive at once, in execution order.

    A tensor lives from the operator that writes it to the last one that reads it; the file's inputs
    from the start, its outputs to the end. What TFLite's arena planner packs is this and gaps
    (tensorflow/lite/arena_planner.h); kernels' scratch buffers and weights that XNNPACK packs come
    on top.
    """
    return max((_peak(model, subgraph) for subgraph in model.subgraphs), default=0)


def _peak(model: ModelT, subgraph: SubGraphT) -> int:
    operators = list(subgraph.operators or ())
    first = dict.fromkeys(_indices(subgraph.inputs), 0)
    last = dict.fromkeys(_indices(subgraph.outputs), len(operators))
    for step, operator in enumerate(operators):
        for index in _indices(operator.outputs):
            first.setdefault(index, step)
        for index in (*_indices(operator.inputs), *_indices(operator.outputs)):
            last[index] = max(last.get(index, step), step)
    changes = [0] * (len(operators) + 2)
    for index, start in first.items():
        tensor = subgraph.tensors[index]
        if not is_constant(model, tensor):
            size = math.prod(int(extent) for extent in _indices(tensor.shape))
            size *= _BYTES.get(type_name(tensor), 4)
            changes[start] += size
            changes[last.get(index, start) + 1] -= size
    alive = peak = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def _indices(values: Sequence[int] | None) -> list[int]:
    return [] if values is None else [int(value) for value in values if value >= 0]
