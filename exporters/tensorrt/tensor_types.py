"""Tensor types: element type and static shape of every tensor of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import onnx

_LARGEST: Final = 1024
"""Elements of a constant whose values shapes may follow from; larger ones are weights."""


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """Of one tensor.

    Attributes:
        element: TensorProto.DataType.
        shape: Its sizes; a size that is not known is 0.
    """

    element: int
    shape: tuple[int, ...]


def tensor_types(proto: onnx.ModelProto) -> dict[str, TensorType]:
    """By name, of inputs, activations, outputs and initializers; what subgraphs hold is left out.

    Weights are inferred from as if they were inputs: onnx copies a model several times to infer
    its shapes, 0.9 s of 90 MB (measured).

    Raises:
        onnx.shape_inference.InferenceError: The model is not valid ONNX.
    """
    outline = onnx.ModelProto(ir_version=proto.ir_version)
    outline.opset_import.extend(proto.opset_import)
    graph, found = outline.graph, {}
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    for tensor in proto.graph.initializer:
        shape = tuple(tensor.dims)
        found[tensor.name] = TensorType(element=tensor.data_type, shape=shape)
        if math.prod(shape) > _LARGEST:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
            graph.input.append(value)
        else:
            graph.initializer.append(tensor)
    inferred = onnx.shape_inference.infer_shapes(outline, strict_mode=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        found.setdefault(value.name, TensorType(element=kind.elem_type, shape=shape))
    return found
