"""Placement: which nodes of a Graph are quantized, and which stay in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
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


def float_by_structure(proto: onnx.ModelProto, masks: Collection[str]) -> set[str]:
    """Names of the nodes that stay in float whatever the recipe says.

    Of a net with attention everything but its weighted layers and its embedding tables: quantizing
    all that can be took MiniLM to cosine .60, the weighted layers alone keep .99 (measured). Of
    others the products of two activations and what reads them. Of both what touches `masks`.
    """
    if has_attention(proto):
        others = {node.name for node in proto.graph.node} - _weighted_nodes(proto)
    else:
        others = _nodes_behind_products(proto)
    return others | _nodes_touching(proto, masks)


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


def _weighted_nodes(proto: onnx.ModelProto) -> set[str]:
    """Layers with a constant weight, and look-ups in a constant table."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {
        node.name
        for node in proto.graph.node
        if (node.op_type in _WEIGHTED and node.input[1] in constants)
        or (node.op_type == "Gather" and node.input[0] in constants)
    }


def _nodes_touching(proto: onnx.ModelProto, names: Collection[str]) -> set[str]:
    touched = set(names)
    return {
        node.name for node in proto.graph.node if touched.intersection((*node.input, *node.output))
    }


def _nodes_behind_products(proto: onnx.ModelProto) -> set[str]:
    """MatMuls of two activations, and nodes without a weight that read what a MatMul gives.

    Were these quantized, the quantizer would quantize the MatMul's output as their input: it leaves
    that out only at the MatMul itself.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    products: set[str] = set()
    found = set()
    for node in proto.graph.node:
        has_weight = node.op_type in _WEIGHTED and not constants.isdisjoint(node.input)
        is_reader = not products.isdisjoint(node.input)
        if node.op_type == "MatMul" or (is_reader and node.op_type in MOVERS):
            products.update(node.output)
        if not has_weight and (is_reader or node.op_type == "MatMul"):
            found.add(node.name)
    return found
