"""Placement in float16: which nodes of a Graph stay in float32, and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from edgeship.exporters.activations import clamped_tensors, float_tensors
from edgeship.exporters.half_constants import (
    HALF_MAX,
    HALF_NORMAL,
    float_constants,
    is_beyond_half,
    lost_constants,
)
from edgeship.exporters.half_operators import NEUTRAL, WEIGHTED, half_positions, is_sensitive
from edgeship.exporters.structure import MOVERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np
    import onnx

    from edgeship.calibration.ranges import Ranges

HEADROOM: Final = 4
"""DESIGN: absmax > 65504/4 stays in float32; other data reaches further, and so do partial sums."""
_CARRIERS: Final = MOVERS | {"Add", "Max", "Min", "Mul", "Neg", "Sub", "Where"}
"""Operators whose output may be as large as a constant that they read."""


class Why(StrEnum):
    """What keeps a node in float32."""

    RULE = "rule"
    OPERATOR = "operator"
    CONSTANT = "constant"
    MASK = "mask"
    RANGE = "range"
    NEIGHBOURS = "neighbours"


@dataclass(frozen=True, kw_only=True)
class Stay:
    """Why a node stays in float32.

    Attributes:
        why: The first reason that there is.
        tensor: The tensor or constant that is the reason, or "".
        value: The value of that which float16 does not hold, or 0.
    """

    why: Why
    tensor: str = ""
    value: float = 0.0


def float32_nodes(
    proto: onnx.ModelProto, ranges: Ranges, ruled: Collection[str]
) -> dict[str, Stay]:
    """By name, the nodes with float tensors that stay in float32.

    Nodes between such ones stay too, unless they are weighted: casts would cost more than float16
    saves. Nodes in `NEUTRAL` are not judged.

    Args:
        proto: A Graph.
        ranges: Of the tensors in `observed_tensors`; what a policy cuts off them counts here too.
        ruled: Names of the nodes that the recipe keeps.
    """
    judge = _Judge(proto, ranges)
    stays: dict[str, Stay] = {}
    for node in judge.float_nodes():
        stay = Stay(why=Why.RULE) if node.name in ruled else judge.stay(node)
        if stay is not None:
            stays[node.name] = stay
    return stays | dict.fromkeys(judge.nodes_between(stays), Stay(why=Why.NEIGHBOURS))


class _Judge:
    """What is known of a Graph's tensors, and what follows for one node."""

    def __init__(self, proto: onnx.ModelProto, ranges: Ranges) -> None:
        self._graph = proto.graph
        self._opset = next(item.version for item in proto.opset_import if not item.domain)
        self._constants = float_constants(proto)
        self._floats = float_tensors(proto) - self._constants.keys()
        self._absmax = _magnitudes(proto, ranges)
        self._masks = {*ranges.masks, *_reached_tensors(proto, self._constants)}

    def float_nodes(self) -> Iterator[onnx.NodeProto]:
        for node in self._graph.node:
            tensors = (*self._float_inputs(node), *self._float_outputs(node))
            if tensors and node.op_type not in NEUTRAL:
                yield node

    def stay(self, node: onnx.NodeProto) -> Stay | None:
        """None if nothing speaks against float16."""
        inputs, outputs = half_positions(node, self._opset)
        if is_sensitive(node, self._constants) or not (inputs or outputs):
            return Stay(why=Why.OPERATOR)
        if not self._float_inputs(node) and self._constants.keys().isdisjoint(node.input):
            return Stay(why=Why.OPERATOR)  # it makes its floats of something else
        for name, value in sorted(lost_constants(node, self._constants).items()):
            return Stay(why=Why.CONSTANT, tensor=name, value=value)
        tensors = (*self._float_inputs(node), *self._float_outputs(node))
        for name in (*node.input, *node.output):
            if name in self._masks:
                return Stay(why=Why.MASK, tensor=name)
        for name in tensors:
            absmax = self._absmax.get(name)
            if absmax is None or absmax > HALF_MAX / HEADROOM or 0 < absmax < HALF_NORMAL:
                return Stay(why=Why.RANGE, tensor=name, value=absmax or 0.0)
        return None

    def nodes_between(self, stays: Collection[str]) -> list[str]:
        """Nodes without weights that read float32 alone, and are read by float32 alone."""
        candidates = self._nodes_before(stays)
        full = {value.name for value in self._graph.input}
        found = []
        for node in self._graph.node:
            if node.name in candidates and full.issuperset(self._float_inputs(node)):
                found.append(node.name)
            elif node.name not in stays and node.op_type not in NEUTRAL:
                continue
            full.update(node.output)
        return found

    def _nodes_before(self, stays: Collection[str]) -> set[str]:
        """Nodes without weights whose outputs only float32 reads."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._graph.node:
            for name in node.input:
                readers[name].append(node)
        found: set[str] = set()
        for node in reversed(self._graph.node):
            if node.name in stays or node.op_type in WEIGHTED or not self._float_inputs(node):
                continue
            using = [reader for name in self._float_outputs(node) for reader in readers[name]]
            if all(
                one.name in stays or one.name in found or one.op_type in NEUTRAL for one in using
            ):
                found.add(node.name)
        return found

    def _float_inputs(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name in self._floats]

    def _float_outputs(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.output if name in self._floats]


def _magnitudes(proto: onnx.ModelProto, ranges: Ranges) -> dict[str, float]:
    """Largest magnitude by tensor name, as far as it was observed.

    What only a Relu or Clip reads has that one's: beyond it, infinity clamps to the same value.
    """
    found = {name: max(-item.low, item.high, 0.0) for name, item in ranges.unclipped.items()}
    for name, clamp in reversed(clamped_tensors(proto).items()):
        if clamp in found:
            found[name] = found[clamp]
    return found


def _reached_tensors(proto: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> set[str]:
    """Activations that may be as large as a constant beyond float16: masks, seen or not.

    A calibration set without padding never shows the mask's value.
    """
    sources = {name for name, values in constants.items() if is_beyond_half(values)}
    reached = set(sources)
    for node in proto.graph.node:
        if node.op_type in _CARRIERS and not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached - sources
