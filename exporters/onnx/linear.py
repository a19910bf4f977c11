"""Linear layers as Gemm: the form whose integer kernel ONNX Runtime finds."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator


def with_gemms(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Turn each MatMul by a weight with a bias added into Reshape, Gemm, Reshape.

    ONNX Runtime does the same when it loads a file with static shapes (MatMulAddFusion), but before
    it looks for Q and DQ: a bias that it moves into a Gemm in float keeps the Gemm in float, and
    MiniLM in int8 ran at 0.6x of fp32 (measured). As a Gemm the bias is quantized with the rest.

    Args:
        proto: A Graph with static shapes; not modified.

    Returns:
        The new model, and by the name of each new tensor the one whose values it has.
    """
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = result.graph
    shapes = _shapes(proto)
    biases = dict(_biased_products(graph))
    aliases: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    absorbed = {add.name for add, _ in biases.values()}
    for node in graph.node:
        if node.name in biases:
            add, bias = biases[node.name]
            rows = f"{node.input[0]}_rows"
            if rows not in aliases:
                aliases[rows] = node.input[0]
                width = shapes[node.input[0]][-1]
                nodes.append(_reshape(graph, node.input[0], rows, (-1, width)))
            product = f"{add.output[0]}_rows"
            gemm = onnx.helper.make_node(
                "Gemm", [rows, node.input[1], bias], [product], name=node.name
            )
            gemm.metadata_props.extend(node.metadata_props)
            aliases[product] = add.output[0]
            nodes += [gemm, _reshape(graph, product, add.output[0], shapes[add.output[0]])]
        elif node.name not in absorbed:
            nodes.append(node)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    return result, aliases


def _biased_products(
    graph: onnx.GraphProto,
) -> Iterator[tuple[str, tuple[onnx.NodeProto, str]]]:
    """Name of each MatMul by a matrix whose only reader adds a vector: that Add, that vector."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type != "MatMul" or node.output[0] in outputs:
            continue
        weight, using = constants.get(node.input[1]), readers[node.output[0]]
        if weight is None or len(weight.dims) != 2 or [one.op_type for one in using] != ["Add"]:
            continue
        (bias,) = (name for name in using[0].input if name != node.output[0])
        vector = constants.get(bias)
        if vector is not None and list(vector.dims) == [weight.dims[1]]:
            yield node.name, (using[0], bias)


def _reshape(
    graph: onnx.GraphProto, source: str, target: str, shape: tuple[int, ...]
) -> onnx.NodeProto:
    constant = numpy_helper.from_array(np.array(shape, np.int64), f"{target}_shape")
    graph.initializer.append(constant)
    return onnx.helper.make_node(
        "Reshape", [source, constant.name], [target], name=f"{target}_reshape"
    )


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
