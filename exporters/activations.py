"""Which tensors of a Graph are observed, and whose range stands for which other tensor's."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

_CLAMPS: Final = frozenset({"Relu", "Clip"})
"""ONNX Runtime fuses these into the node before them, whose output then has their range."""


def observed_tensors(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the float activations whose statistics an integer file may need.

    All but those that only a Relu or Clip reads: `clamped_tensors` gives them that one's range.
    """
    floats = float_tensors(proto)
    clamped = clamped_tensors(proto)
    inputs = [value.name for value in proto.graph.input]
    outputs = [name for node in proto.graph.node for name in node.output]
    return tuple(name for name in (*inputs, *outputs) if name in floats and name not in clamped)


def clamped_tensors(proto: onnx.ModelProto) -> dict[str, str]:
    """Output of the Relu or Clip, by the name of the tensor that it alone reads."""
    readers = _readers(proto)
    outputs = {value.name for value in proto.graph.output}
    clamped = {}
    for node in proto.graph.node:
        name = node.input[0] if node.input else ""
        if node.op_type in _CLAMPS and len(readers[name]) == 1 and name not in outputs:
            clamped[name] = node.output[0]
    return clamped


def float_tensors(proto: onnx.ModelProto) -> set[str]:
    """Names of the float32 activations: inputs, outputs and all between, but no weights."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return {
        value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def _readers(proto: onnx.ModelProto) -> dict[str, Sequence[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers  # type: ignore[return-value]  # a list is a Sequence; the default stays
