"""Structure: what the operators of a Graph are to quantization, whatever the format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx

LINEAR: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Sums of products: what integer kernels are for."""
MOVERS: Final = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that move values and compute nothing."""


def has_attention(proto: onnx.ModelProto) -> bool:
    """Whether a product of two activations follows a Softmax, as in scaled dot-product attention.

    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 1.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    weights = {
        name for node in proto.graph.node if node.op_type == "Softmax" for name in node.output
    }
    for node in proto.graph.node:
        if weights.isdisjoint(node.input):
            continue
        if node.op_type == "MatMul" and constants.isdisjoint(node.input):
            return True
        if node.op_type in MOVERS | {"Where"}:
            weights.update(node.output)
    return False
