"""Census: what of a QDQ graph the runtime computes in integers, and what in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import numpy_helper

from edgeship.exporters.structure import MOVERS

if TYPE_CHECKING:
    import onnx

_INTEGER_KERNELS: Final = frozenset(
    {
        "Add",
        "AveragePool",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Resize",
        "Sigmoid",
        "Softmax",
    }
)
"""Operators without weights that ONNX Runtime 1.31 fuses with the Q and DQ around them on a CPU
(onnxruntime qdq_selector_action_transformer.cc); a test compares them with its optimised graphs."""
_MARKS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def float_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of a QDQ graph that compute in float.

    The runtime computes in integers where it has a kernel for that, the node reads only dequantized
    tensors, and all that it gives is quantized again; a Gemm or MatMul may also give floats. Nodes
    that only move values compute nothing.
    """
    dequantized = {
        node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"
    }
    quantized = {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    constants = {tensor.name for tensor in proto.graph.initializer} | {""}

    def is_integer(node: onnx.NodeProto) -> bool:
        if node.op_type in ("Gemm", "MatMul"):
            return dequantized.issuperset(node.input[:2])
        if node.op_type == "Conv":
            return dequantized.issuperset(node.input[:2]) and quantized.issuperset(node.output)
        activations = set(node.input) - constants
        is_enclosed = activations <= dequantized and quantized.issuperset(node.output)
        return node.op_type in _INTEGER_KERNELS and is_enclosed

    return [
        node
        for node in proto.graph.node
        if node.op_type not in _MARKS | MOVERS and not is_integer(node)
    ]


def output_steps(proto: onnx.ModelProto) -> dict[str, float]:
    """By name, the scale of each graph output that is dequantized last: one LSB of it."""
    outputs = {value.name for value in proto.graph.output}
    scales = {tensor.name: tensor for tensor in proto.graph.initializer}
    return {
        node.output[0]: float(numpy_helper.to_array(scales[node.input[1]]))
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs
    }
