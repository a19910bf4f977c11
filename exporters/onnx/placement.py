"""Placement: which nodes of a Graph are quantized, and which stay in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.exporters.structure import LINEAR, MOVERS, has_attention

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx


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


def _weighted_nodes(proto: onnx.ModelProto) -> set[str]:
    """Layers with a constant weight, and look-ups in a constant table."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {
        node.name
        for node in proto.graph.node
        if (node.op_type in LINEAR and node.input[1] in constants)
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
        has_weight = node.op_type in LINEAR and not constants.isdisjoint(node.input)
        is_reader = not products.isdisjoint(node.input)
        if node.op_type == "MatMul" or (is_reader and node.op_type in MOVERS):
            products.update(node.output)
        if not has_weight and (is_reader or node.op_type == "MatMul"):
            found.add(node.name)
    return found
