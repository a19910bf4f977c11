"""Stand-in: the kit's INT8 graph as ONNX Runtime's CPU can judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOWEST: Final = "edgeship_lowest"


def lifted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same codes and scales, with the arithmetic between them in float32.

    A CPU's float16 is no reference: ONNX Runtime 1.24 truncated where QuantizeLinear must round,
    and 3 points of ResNet-20's accuracy seemed lost. Every float16 constant and scale is exact in
    float32. Behind each DequantizeLinear of an activation stands a Max with the lowest float32,
    which changes no number: without it the runtime's optimiser would fuse and requantize layers
    by rules of its own, while the graph says where to round.

    Args:
        proto: With or without float16; not modified.

    Returns:
        A model for measuring accuracy alone: it is slower than the Graph.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    for tensor in graph.initializer:
        _lift_tensor(tensor)
    for node in graph.node:
        _lift_attributes(node)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    _shield_pairs(graph)
    return result


def _lift_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _lift_attributes(node: onnx.NodeProto) -> None:
    """Types to cast to, and the tensors of Constant nodes."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _lift_tensor(attribute.t)


def _shield_pairs(graph: onnx.GraphProto) -> None:
    nodes = list(_shielded(graph))
    del graph.node[:]
    graph.node.extend(nodes)
    lowest = np.asarray(np.finfo(np.float32).min)
    graph.initializer.append(numpy_helper.from_array(lowest, _LOWEST))


def _shielded(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    weights = {tensor.name for tensor in graph.initializer}
    constant = {
        node.output[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in weights
    }
    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        yield node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constant:
            (name,) = node.output
            node.output[0] = f"{name}_unshielded"
            shield = [node.output[0], _LOWEST]
            yield onnx.helper.make_node("Max", shield, [name], name=f"{name}_shield")
