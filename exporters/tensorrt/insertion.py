"""Insertion: QuantizeLinear and DequantizeLinear written into a model, one pair for each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgeship.exporters.structure import LINEAR
from edgeship.exporters.tensorrt.scales import weight_scales, written_scales
from edgeship.exporters.tensorrt.tensor_types import tensor_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeship.exporters.tensorrt.placement import Placement


def with_pairs(
    proto: onnx.ModelProto, placed: Placement, scales: Mapping[str, float]
) -> onnx.ModelProto:
    """Put the pairs of `placed` into a model.

    A tensor that exists in float16 has one pair in float16, and nodes in float32 cast what that
    gives; layers with weights in float32 have a pair in float32. Zero points are explicit, since
    TensorRT before 8.6 demands them; weights stay floats with a pair of their own, the form that
    every version reads. A pair has the metadata of the node that it is for.

    Args:
        proto: The Graph that `placed` was decided on, or the same in float16: nodes have kept
            their names, and each input its position. Not modified.
        placed: Where.
        scales: By tensor of the Graph.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    writer = _Writer(result)
    for taker, tensor in placed.activations.items():
        writer.add_activation(*taker, scales[tensor])
    for taker, axis in placed.weights.items():
        writer.add_weight(*taker, axis)
    writer.write_nodes()
    return result


_FULL: Final = onnx.TensorProto.FLOAT


class _Writer:
    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._nodes = {node.name: node for node in self._graph.node}
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._kinds = {name: kind.element for name, kind in tensor_types(proto).items()}
        self._taken = {name for node in self._graph.node for name in (*node.output, node.name)}
        self._taken |= self._kinds.keys()
        self._half_sources = _half_sources(proto.graph, self._kinds)
        self._written: dict[tuple[str, int | None], str] = {}
        self._cast: dict[str, str] = {}
        self._pairs: dict[str, list[onnx.NodeProto]] = {}

    def add_activation(self, name: str, index: int, scale: float) -> None:
        """Let an input of a node read quantized values, one scale for all of them."""
        node = self._nodes[name]
        source = node.input[index]
        if node.op_type not in LINEAR:  # INT8 layers have to read the pair itself
            source = self._half_sources.get(source, source)
        if (source, None) not in self._written:
            self._add_pair(node, source, None, np.asarray(scale))
        result = self._written[source, None]
        if source != node.input[index]:
            result = self._full(result, node)
        node.input[index] = result

    def add_weight(self, name: str, index: int, axis: int | None) -> None:
        """Likewise of a weight, with a scale for each channel."""
        node = self._nodes[name]
        source = node.input[index]
        if (source, axis) not in self._written:
            values = numpy_helper.to_array(self._weights[source])
            self._add_pair(node, source, axis, weight_scales(values, axis))
        node.input[index] = self._written[source, axis]

    def write_nodes(self) -> None:
        """Bring the nodes into order: each pair stands before the first node that reads it."""
        ordered: list[onnx.NodeProto] = []
        for node in self._graph.node:
            for name in node.input:
                ordered += self._pairs.pop(self._uncast(name), ())
                ordered += self._pairs.pop(name, ())
            ordered.append(node)
        copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self._graph.node[:]
        self._graph.node.extend(copied)

    def _add_pair(
        self, node: onnx.NodeProto, source: str, axis: int | None, scales: np.ndarray
    ) -> None:
        kind = onnx.helper.tensor_dtype_to_np_dtype(self._kinds[source])
        written = written_scales(scales, kind)
        scale = self._add_constant(written, f"{source}_scale")
        zero = self._add_constant(np.zeros(written.shape, np.int8), f"{source}_zero_point")
        quantized = self._new_name(f"{source}_quantized")
        result = self._new_name(f"{source}_dequantized")
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        pair = [
            onnx.helper.make_node(
                kind, inputs, [output], name=self._new_name(f"{source}_{kind}"), **attributes
            )
            for kind, inputs, output in (
                ("QuantizeLinear", [source, scale, zero], quantized),
                ("DequantizeLinear", [quantized, scale, zero], result),
            )
        ]
        for made in pair:
            made.metadata_props.extend(node.metadata_props)
        self._written[source, axis] = result
        self._pairs[result] = pair

    def _full(self, name: str, node: onnx.NodeProto) -> str:
        """What a node in float32 reads of a pair in float16."""
        if name not in self._cast:
            result = self._cast[name] = self._new_name(f"{name}_float32")
            cast = onnx.helper.make_node(
                "Cast", [name], [result], name=self._new_name(f"{result}_cast"), to=_FULL
            )
            cast.metadata_props.extend(node.metadata_props)
            self._pairs[result] = [cast]
        return self._cast[name]

    def _uncast(self, name: str) -> str:
        """What a cast that `_full` made reads."""
        return next((source for source, result in self._cast.items() if result == name), name)

    def _add_constant(self, values: np.ndarray, wanted: str) -> str:
        name = self._new_name(wanted)
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _new_name(self, wanted: str) -> str:
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted


def _half_sources(graph: onnx.GraphProto, kinds: Mapping[str, int]) -> dict[str, str]:
    """By tensor in float32 that was cast from one in float16, that one."""
    return {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and kinds.get(node.output[0]) == _FULL
        and kinds.get(node.input[0]) == onnx.TensorProto.FLOAT16
    }
