"""Projection: what the ranges of a file's tensors become, for kernels to be fast or exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    is_constant,
    operator_name,
    operators,
    tensor_name,
)

_LOWEST: Final = -128 / 127
"""Of a symmetric range: with -128 at -128/127 of the highest value, the zero point is 0."""
_GELU_LOW: Final = -3.5
"""GELU(-3.5) is -8e-4, and below it rises to 0; the steps saved are worth more (measured: on
MiniLM, cosine .985 with the clip as without, the worst text .974 instead of .969)."""
_MEANS: Final = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
"""Of those below, what gives other values than it reads: a cut before it is not one behind it."""
# fmt: off
_MOVERS: Final = (
    "BROADCAST_TO", "GATHER", "GATHER_ND", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "REDUCE_MIN",
    "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPACE_TO_DEPTH", "STRIDED_SLICE", "TRANSPOSE",
    "UNPACK",
)
# fmt: on
_SAME_SCALE: Final = {**dict.fromkeys((*_MOVERS, *_MEANS), 0), "SPLIT": 1}
"""Operators whose output takes its input's scale, whatever its own range is; the input's position
(ai-edge-quantizer 0.10.0, SAME_AS_INPUT_SCALE)."""
_FIXED_SCALE: Final = frozenset({"LOGISTIC", "SOFTMAX", "TANH"})
"""Their kernels prescribe the output's scale (LiteRT 8-bit quantization specification)."""


def project_ranges(model: ModelT, ranges: Ranges) -> tuple[Ranges, list[str]]:
    """Apply every rule; the new ranges, and a line for people for each rule that changed some.

    Tensors without a range have none afterwards either. `ranges` is left unchanged.
    """
    notes = []
    for rule, note in ((_symmetric_operands, _OPERANDS), (_clipped_gelus, _GELUS)):
        changed = rule(model, ranges)
        if changed:
            ranges = replace(ranges, by_name={**ranges.by_name, **changed})
            notes.append(note.format(_listed(sorted(changed))))
    return ranges, notes


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


_NAMED: Final = 3
"""Tensors that a note names; of the others it gives the number."""
_OPERANDS: Final = (
    "range made symmetric, for LiteRT runs int8 matrix products in XNNPACK only where the right"
    " operand's zero point is 0: {}"
)
_GELUS: Final = "range of what GELU reads cut at -3.5, below which GELU is 0 within 8e-4: {}"


def _symmetric_operands(model: ModelT, ranges: Ranges) -> dict[str, Range]:
    """A run-time right operand of BATCH_MATMUL, and all it takes its scale from: one range."""
    changed: dict[str, Range] = {}
    for subgraph, operator in operators(model):
        if operator_name(model, operator) != "BATCH_MATMUL":
            continue
        chain = _scale_chain(model, subgraph, operator.inputs[1])
        tensors = [subgraph.tensors[index] for index in chain]
        known = [item for item in map(tensor_name, tensors) if item in ranges.by_name]
        root = _producer(subgraph, chain[-1])
        is_fixed = root is not None and operator_name(model, root) in _FIXED_SCALE
        if is_fixed or not known or any(is_constant(model, item) for item in tensors):
            continue
        ends = [changed.get(name, ranges.by_name[name]) for name in known]
        peak = max(max(item.low / _LOWEST, item.high) for item in ends)
        changed.update(dict.fromkeys(known, Range(low=_LOWEST * peak, high=peak)))
    return {name: item for name, item in changed.items() if item != ranges.by_name[name]}


def _clipped_gelus(model: ModelT, ranges: Ranges) -> dict[str, Range]:
    """What only GELU reads, and all it takes its scale from, as long as nothing else reads it."""
    changed = {}
    for subgraph, operator in operators(model):
        if operator_name(model, operator) != "GELU":
            continue
        allowed = {id(item) for item in subgraph.operators if operator_name(model, item) == "GELU"}
        for index in _scale_chain(model, subgraph, operator.inputs[0]):
            readers = [item for item in subgraph.operators if index in item.inputs]
            name = tensor_name(subgraph.tensors[index])
            item = ranges.by_name.get(name)
            is_shared = index in subgraph.outputs or not {id(item) for item in readers} <= allowed
            if item is None or is_shared:
                break
            if item.low < _GELU_LOW:
                changed[name] = Range(low=_GELU_LOW, high=max(item.high, _GELU_LOW))
            producer = _producer(subgraph, index)
            allowed = {id(producer)} if producer and _only_moves(model, producer) else set()
    return changed


def _only_moves(model: ModelT, operator: OperatorT) -> bool:
    """Whether it gives nothing but values that it reads, in one output: a split's go elsewhere."""
    return len(operator.outputs) == 1 and operator_name(model, operator) not in _MEANS


def _scale_chain(model: ModelT, subgraph: SubGraphT, index: int) -> list[int]:
    """The tensor, and those before it that give it its scale, up to the one that has its own."""
    chain = [index]
    while producer := _producer(subgraph, chain[-1]):
        position = _SAME_SCALE.get(operator_name(model, producer))
        if position is None:
            break
        chain.append(producer.inputs[position])
    return chain


def _producer(subgraph: SubGraphT, index: int) -> OperatorT | None:
    return next((item for item in subgraph.operators if index in item.outputs), None)
