"""float16 inside, float32 at the border: a Graph with casts where the two meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeship.exporters.activations import float_tensors
from edgeship.exporters.half_constants import float_constants, vanished_count
from edgeship.exporters.half_operators import NEUTRAL, captured_names, half_positions
from edgeship.exporters.half_placement import Stay, float32_nodes

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgeship.calibration.ranges import Ranges

_SUFFIX: Final = "_float16"
_ROUNDING: Final = 2.0**-8
"""Of an output's largest magnitude: about twice what ONNX Runtime's CPU, which rounds float16 less
often, and numpy's float16 differed by (ResNet-20 .0016, MiniLM .0009; measured)."""


@dataclass(frozen=True, kw_only=True)
class HalfGraph:
    """A float16 model, and what is to be said of it.

    Attributes:
        proto: Its inputs and outputs are those of the Graph, in float32.
        stays: The nodes in float32 by name.
        vanished: Weights that float16 made 0.
    """

    proto: onnx.ModelProto
    stays: dict[str, Stay]
    vanished: int


def half_graph(proto: onnx.ModelProto, ranges: Ranges, ruled: Collection[str]) -> HalfGraph:
    """Turn weights and arithmetic to float16, but for the nodes in `float32_nodes`.

    A tensor that both sides use is cast once. float32 tensors keep their names, float16 ones have
    `_float16` after it. Weights are rounded to nearest even, and none is clipped.

    Args:
        proto: A Graph; not modified.
        ranges: Of the tensors in `observed_tensors`; what a policy cuts off them counts here too.
        ruled: Names of the nodes that the recipe keeps in float32.
    """
    stays = float32_nodes(proto, ranges, ruled)
    border = _Border(proto)
    for node in proto.graph.node:
        if node.op_type in NEUTRAL:
            border.add_neutral(node)
        elif node.name in stays or node.op_type == "Constant":
            border.add_full(node)
        else:
            border.add_half(node)
    for value in proto.graph.output:
        border.full(value.name)
    result, vanished = border.model()
    return HalfGraph(proto=result, stays=stays, vanished=vanished)


def output_rounding(proto: onnx.ModelProto, ranges: Ranges) -> dict[str, float]:
    """By name, how far an output in float16 arithmetic may be from that of another runtime."""
    found, ranges_by_name = {}, ranges.unclipped
    for value in proto.graph.output:
        if value.name in ranges_by_name:
            item = ranges_by_name[value.name]
            absmax = max(-item.low, item.high)
            if absmax > 0:
                found[value.name] = _ROUNDING * absmax
    return found


class _Border:
    """The nodes of the result as they come, and in which types each float tensor exists."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = proto
        self._opset = next(item.version for item in proto.opset_import if not item.domain)
        self._weights = {tensor.name for tensor in proto.graph.initializer}
        self._floats = float_tensors(proto) | float_constants(proto).keys()
        self._taken = {name for node in proto.graph.node for name in (*node.output, node.name)}
        self._taken |= self._weights | {value.name for value in proto.graph.input}
        self._full = {value.name for value in proto.graph.input}
        self._half: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def add_neutral(self, node: onnx.NodeProto) -> None:
        """It reads what there is."""
        copy = _copy(node)
        for index, name in enumerate(node.input):
            if name in self._half and name not in self._full:
                copy.input[index] = self._half[name]
            elif name in self._floats:
                self.full(name)
        self._add(copy)

    def add_full(self, node: onnx.NodeProto) -> None:
        for name in (*node.input, *sorted(captured_names(node))):
            if name in self._floats:
                self.full(name)
        self._add(_copy(node))

    def add_half(self, node: onnx.NodeProto) -> None:
        copy = _copy(node)
        inputs, outputs = half_positions(node, self._opset)
        for index, name in enumerate(node.input):
            if name in self._floats and index in inputs:
                copy.input[index] = self.half(name)
            elif name in self._floats:
                self.full(name)
        for index, name in enumerate(node.output):
            if name in self._floats and index in outputs:
                self._half[name] = copy.output[index] = self._new_name(name + _SUFFIX)
        self._add(copy)

    def full(self, name: str) -> None:
        """Make sure that the tensor exists in float32, under its own name."""
        if name in self._half and name not in self._full and name not in self._weights:
            self._cast(self._half[name], name, TensorProto.FLOAT)
        self._full.add(name)

    def half(self, name: str) -> str:
        """Name of the tensor in float16, cast to it if it is not there yet."""
        if name not in self._half:
            self._half[name] = self._new_name(name + _SUFFIX)
            if name not in self._weights:
                self._cast(name, self._half[name], TensorProto.FLOAT16)
        return self._half[name]

    def model(self) -> tuple[onnx.ModelProto, int]:
        """The result, and how many of its weights float16 made 0."""
        result = onnx.ModelProto()
        result.CopyFrom(self._proto)
        graph = result.graph
        vanished = 0
        for field in ("node", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(self._nodes)
        for tensor in self._proto.graph.initializer:
            if tensor.name in self._half:
                values = numpy_helper.to_array(tensor)
                vanished += vanished_count(values)
                rounded = values.astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(rounded, self._half[tensor.name]))
            if tensor.name in self._full or tensor.name not in self._floats:
                graph.initializer.append(tensor)
        return result, vanished

    def _cast(self, source: str, target: str, kind: int) -> None:
        name = self._new_name(f"{target}_cast")
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=kind))

    def _add(self, node: onnx.NodeProto) -> None:
        self._full.update(node.output)
        self._nodes.append(node)

    def _new_name(self, wanted: str) -> str:
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
