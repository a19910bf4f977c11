"""Mask constants: finite ones, such as -10,000, that keep positions out of a softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.edits import constant_values
from edgeship.exporters.tflite.flatbuffer import is_constant, operator_name, tensor_name, type_name

if TYPE_CHECKING:
    import numpy as np

    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT

MASKING: Final = -50.0
"""The weakest in use is -100, for windows (github.com/microsoft/Swin-Transformer,
models/swin_transformer.py); that of BERT is -10,000 (github.com/google-research/bert, modeling.py).
Whether a constant below does mask, the ranges of the scores say."""
MOVING: Final = frozenset(
    ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "SLICE", "STRIDED_SLICE")
)
CHOOSING: Final = frozenset({"SELECT", "SELECT_V2"})
_FLIPPING: Final = MOVING | {"SUB"}
"""What a mask of ones and zeros goes through on its way: 1 - mask, say."""


@dataclass(frozen=True, kw_only=True)
class _Unmasked:
    """What a tensor holds where nothing is masked, and the constants that mask the rest."""

    range: Range
    sources: frozenset[int]


def unmasked_ranges(tables: ModelT, ranges: Ranges) -> tuple[list[int], Ranges]:
    """Find the constants that only mask; the ranges without what they add.

    A constant masks where all that it reaches is softmaxes: it is chosen for a score or added to
    it, itself or times a mask of ones and zeros. Anything else leaves it alone.

    Returns:
        Places of the constants among the tensors, and `ranges` with those of the tensors that
        carry them as if nothing had been masked.
    """
    (graph,) = tables.subgraphs
    candidates = {
        index for index in range(len(graph.tensors)) if _weakest(tables, index) is not None
    }
    while candidates:
        found, failed = _follow(tables, graph, candidates, ranges)
        if not failed:
            kept = {source for item in found.values() for source in item.sources}
            changed = {tensor_name(graph.tensors[at]): item.range for at, item in found.items()}
            known = {name: item for name, item in changed.items() if name in ranges.by_name}
            return sorted(kept), replace(ranges, by_name={**ranges.by_name, **known})
        candidates -= failed
    return [], ranges


def weakest_mask(tables: ModelT, index: int) -> float:
    """The highest value of a constant that masks."""
    found = _weakest(tables, index)
    assert found is not None  # of those of `unmasked_ranges`
    return found


def _weakest(tables: ModelT, index: int) -> float | None:
    values = _floats(tables, index)
    if values is None or not values.size or not (values <= MASKING).any():
        return None
    return float(values[values <= MASKING].max())


def _follow(
    tables: ModelT, graph: SubGraphT, candidates: set[int], ranges: Ranges
) -> tuple[dict[int, _Unmasked], set[int]]:
    """What carries the candidates; and those of them that reach something other than a softmax."""
    found: dict[int, _Unmasked] = {}
    failed: set[int] = set()
    for operator in graph.operators:
        read = {int(index) for index in operator.inputs}
        sources = set(read & candidates).union(*(found[i].sources for i in read & found.keys()))
        if not sources or operator_name(tables, operator) == "SOFTMAX":
            failed |= sources & read  # a constant that is a softmax's input masks nothing
            continue
        result = _result(tables, graph, operator, found, candidates, ranges)
        output = int(operator.outputs[0])
        if result is None or output in graph.outputs:
            failed |= sources
        else:
            found[output] = _Unmasked(range=result, sources=frozenset(sources))
    return found, failed


def _result(
    tables: ModelT,
    graph: SubGraphT,
    operator: OperatorT,
    found: dict[int, _Unmasked],
    candidates: set[int],
    ranges: Ranges,
) -> Range | None:
    """The unmasked range of what the operator gives; None where it does more than mask."""

    def end(index: int) -> Range | None:
        if index in found:
            return found[index].range
        values = _floats(tables, index)
        if values is None:
            return ranges.by_name.get(tensor_name(graph.tensors[index]))
        values = values[values > MASKING] if index in candidates else values
        return Range(low=float(values.min()), high=float(values.max())) if values.size else None

    name, inputs = operator_name(tables, operator), [int(index) for index in operator.inputs]
    if name in MOVING:
        return end(inputs[0])
    if name in CHOOSING:
        return next(iter(_joined(end(index) for index in inputs[1:])), None)
    if name == "ADD":
        ends = [end(index) for index in inputs]
        known = [item for item in ends if item is not None]
        if len(known) < len(ends):
            return None  # a constant that masks everything: a bias, say
        return Range(low=sum(item.low for item in known), high=sum(item.high for item in known))
    if name == "MUL":
        return _product(tables, graph, inputs, found, candidates, ranges)
    return None


_NOTHING: Final = Range(low=0.0, high=0.0)


def _joined(ends: Iterator[Range | None]) -> list[Range]:
    """One range that spans those that there are; none if there are none."""
    known = [item for item in ends if item is not None]
    if not known:
        return []
    return [Range(low=min(i.low for i in known), high=max(i.high for i in known))]


def _product(
    tables: ModelT,
    graph: SubGraphT,
    inputs: list[int],
    found: dict[int, _Unmasked],
    candidates: set[int],
    ranges: Ranges,
) -> Range | None:
    """Scores behind a mask times a positive number; or a constant times ones and zeros."""
    for carrier, other in (inputs, inputs[::-1]):
        values = _floats(tables, other)
        if carrier in found and values is not None and values.size == 1 and values.min() > 0:
            item, factor = found[carrier].range, float(values.min())
            return Range(low=item.low * factor, high=item.high * factor)
        if carrier in candidates and _is_binary(tables, graph, other, ranges):
            values = _floats(tables, carrier)
            return _NOTHING if values is not None and (values <= MASKING).all() else None
    return None


def _is_binary(tables: ModelT, graph: SubGraphT, index: int, ranges: Ranges) -> bool:
    """Whether it is a cast of integers, moved and subtracted at most, and lies in 0..1."""
    item = ranges.by_name.get(tensor_name(graph.tensors[index]))
    if item is None or item.low < 0 or item.high > 1:
        return False
    producers = {int(place): operator for operator in graph.operators for place in operator.outputs}
    while index in producers:
        operator = producers[index]
        name = operator_name(tables, operator)
        inputs = [int(place) for place in operator.inputs]
        if name == "CAST":
            return type_name(graph.tensors[inputs[0]]) != "FLOAT32"
        if name not in _FLIPPING:
            return False
        if name == "SUB":
            values = _floats(tables, inputs[0])
            if values is None or not (values == 1).all():
                return False
        index = inputs[1] if name == "SUB" else inputs[0]
    return False


def _floats(tables: ModelT, index: int) -> np.ndarray | None:
    """A float32 constant's values; None for every other tensor."""
    if index < 0:
        return None
    tensor = tables.subgraphs[0].tensors[index]
    if type_name(tensor) != "FLOAT32" or not is_constant(tables, tensor):
        return None
    values: np.ndarray = constant_values(tables, tensor)
    return values
