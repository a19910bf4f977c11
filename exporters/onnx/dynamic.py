"""int8 at run time: weights quantized here, activations by the runtime, from each input anew."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.activations import float_tensors
from edgeship.exporters.onnx.qdq import quiet_quantizer
from edgeship.exporters.structure import MOVERS
from edgeship.runtimes.ort import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_CONVOLUTIONS: Final = frozenset({"Conv", "ConvTranspose"})
_REFUSED: Final = (ValueError, KeyError, AssertionError, RuntimeError, TypeError)


def dynamic_graph(
    proto: onnx.ModelProto, *, reduce_range: bool, kept: Collection[str]
) -> onnx.ModelProto:
    """Quantize the weights of Gemm and MatMul per output channel and look-up tables per tensor.

    Activations become uint8 as they come, with the range of each tensor. Convolutions stay in
    float: as ConvInteger, ResNet-20 ran at 0.67x of float speed (measured).

    Args:
        proto: A Graph; not modified.
        reduce_range: Weights in 7 bits, for CPUs whose 8-bit products saturate.
        kept: Names of nodes that stay in float.

    Raises:
        ExportFailed: The quantizer cannot do it, or nothing is left for it.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    linear = _with_matmuls(proto)
    chosen = _quantizable_nodes(linear, kept)
    if not chosen:
        raise _failed()
    with tempfile.TemporaryDirectory(prefix="edgeship-") as name, quiet_quantizer():
        output = Path(name, "model.onnx")
        try:
            quantize_dynamic(
                linear,
                output,
                op_types_to_quantize=["MatMul", "Gather"],
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
            )
        except _REFUSED as error:
            raise _failed(error) from error
        return onnx.load(output)


def dynamic_notes(proto: onnx.ModelProto, quantized: onnx.ModelProto) -> list[str]:
    """Lines for the manifest; `quantized` was made of `proto` by `dynamic_graph`."""
    floats = float_tensors(proto)
    kinds = {
        node.name: node.op_type for node in proto.graph.node if not floats.isdisjoint(node.output)
    }
    in_float = Counter(
        kinds[node.name]
        for node in quantized.graph.node
        if node.name in kinds and node.op_type not in MOVERS | {"Cast"}
    )
    notes = ["activations are quantized at run time"]
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(in_float.items()))
    if counted:
        notes.append(f"computed in float32: {counted}")
    if not _CONVOLUTIONS.isdisjoint(in_float):
        notes.append(
            "convolutions stay in float32: quantized at run time they ran at 0.67x of fp32"
            " (ResNet-20, x86-64); for them int8 is the faster precision"
        )
    return notes


def _quantizable_nodes(proto: onnx.ModelProto, kept: Collection[str]) -> list[str]:
    """MatMuls by a matrix, and look-ups in a table, that the recipe does not keep."""
    matrices = {
        tensor.name
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    }
    position = {"MatMul": 1, "Gather": 0}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in position
        and node.input[position[node.op_type]] in matrices
        and node.name not in kept
    ]


def _with_matmuls(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn each Gemm by a constant matrix into MatMul and Add, the form that can be quantized.

    The quantizer does so too, but transposes the matrix in place: a layer that is used twice would
    have it transposed twice. The MatMul keeps the Gemm's name.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    graph.ClearField("node")
    for node in proto.graph.node:
        if node.op_type == "Gemm" and node.input[1] in weights and _is_plain(node):
            graph.node.extend(_matmul_from_gemm(node, weights, graph))
        else:
            graph.node.append(node)
    used = {name for node in graph.node for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)
    return result


def _is_plain(node: onnx.NodeProto) -> bool:
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    factors = (values.get("alpha", 1.0), values.get("beta", 1.0))
    return factors == (1.0, 1.0) and not values.get("transA")


def _matmul_from_gemm(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    weight = node.input[1]
    if any(item.name == "transB" and item.i for item in node.attribute):
        weight = f"{weight}_transposed"
        if weight not in {tensor.name for tensor in graph.initializer}:
            values = numpy_helper.to_array(weights[node.input[1]]).T
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), weight))
    has_bias = len(node.input) > 2 and bool(node.input[2])
    product = f"{node.output[0]}_product" if has_bias else node.output[0]
    made = [onnx.helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)]
    if has_bias:
        operands = [product, node.input[2]]
        name = f"{node.name}_bias"
        made.append(onnx.helper.make_node("Add", operands, [node.output[0]], name=name))
    return made


def _failed(error: Exception | None = None) -> ExportFailed:
    problem = Problem(
        where="onnx dynamic",
        what="the model cannot be quantized at run time",
        expected="a Gemm, MatMul or table with a constant matrix, that no rule keeps in fp32",
        found="none" if error is None else f"{type(error).__name__}: {error}"[:300],
        remedy='choose precisions = ["int8"], with representative data',
    )
    return ExportFailed(problem)
