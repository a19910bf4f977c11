"""Files: an ONNX model in the form that ships, with nothing in it that only the build needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import onnx

from edgeship.errors import ExportFailed, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PRODUCER: Final = "edgeship"
_ALIASES: Final = frozenset({"DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Fused into their reader, or views of their input: no memory of their own."""


def write_stripped_file(proto: onnx.ModelProto, file: Path, *, ir_version: int) -> None:
    """Strip, check and write the model; deterministic.

    Modifies `proto`: build metadata and inferred shapes go, and the IR version becomes the oldest
    that the opset allows, so that the file loads in every runtime that knows its operators.

    Raises:
        ExportFailed: The result is not valid ONNX.
    """
    proto.ir_version = ir_version
    proto.producer_name, proto.producer_version = _PRODUCER, ""
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        problem = Problem(
            where=file.name,
            what="the emitted file is not valid ONNX",
            found=str(error).splitlines()[0][:300],
            remedy="this is a defect of the export: report the model's operators",
        )
        raise ExportFailed(problem) from error
    file.write_bytes(proto.SerializeToString(deterministic=True))


def forecast_memory(proto: onnx.ModelProto) -> int:
    """Bytes of the weights and of the most activations that live at once, in the file's order.

    A forecast: the runtime's own arena rounds up and may pack weights a second time.
    """
    weights = sum(_size(tensor.data_type, tensor.dims) for tensor in proto.graph.initializer)
    sizes = dict(_tensor_sizes(proto))
    viewed = _viewed_tensors(proto)
    last_read = {
        viewed.get(name, name): index
        for index, node in enumerate(proto.graph.node)
        for name in node.input
    }
    outputs = {viewed.get(value.name, value.name) for value in proto.graph.output}
    live = sum(sizes.get(value.name, 0) for value in proto.graph.input)
    peak = live
    for index, node in enumerate(proto.graph.node):
        live += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, live)
        for name in {viewed.get(name, name) for name in node.input} - outputs:
            if last_read[name] == index:
                live -= sizes.get(name, 0)
    return weights + peak


def _viewed_tensors(proto: onnx.ModelProto) -> dict[str, str]:
    """The tensor whose memory a view uses, by the view's name: it lives as long as its views."""
    viewed: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type in _ALIASES:
            viewed[node.output[0]] = viewed.get(node.input[0], node.input[0])
    return viewed


def _tensor_sizes(proto: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    inferred = onnx.shape_inference.infer_shapes(proto)
    views = _viewed_tensors(proto)
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if value.name not in views:
            yield value.name, _size(kind.elem_type, [dim.dim_value for dim in kind.shape.dim])


def _size(element_type: int, shape: Iterable[int]) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(element_type).itemsize * math.prod(shape)
