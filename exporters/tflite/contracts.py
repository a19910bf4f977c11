"""Contracts: what goes into a file and what comes out, read from its own tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.tflite.flatbuffer import type_name
from edgeship.vocabulary import Layout

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, TensorT

IMAGE_RANK = 4


def is_turned(spec: TensorSpec) -> bool:
    """Whether an input of the model is images that the file takes channel-last."""
    return spec.layout is Layout.NCHW and len(spec.shape) == IMAGE_RANK


def file_contract(contract: Contract, tables: ModelT) -> Contract:
    """The model's contract in the file's shapes, layouts and element types, float or integer.

    Names, order, preprocessing and labels stay. `scale` and `zero_point` are those of a tensor that
    is quantized per tensor: real = scale * (stored - zero_point).
    """
    (graph,), (signature,) = tables.subgraphs, tables.signatureDefs
    tensors = {
        item.name.decode(): graph.tensors[item.tensorIndex]
        for item in (*signature.inputs, *signature.outputs)
    }
    turns_outputs = any(is_turned(spec) for spec in contract.inputs)
    return Contract(
        inputs=tuple(_spec(spec, tensors[spec.name], is_turned(spec)) for spec in contract.inputs),
        outputs=tuple(
            _spec(spec, tensors[spec.name], turns_outputs and len(spec.shape) == IMAGE_RANK)
            for spec in contract.outputs
        ),
    )


def _spec(spec: TensorSpec, tensor: TensorT, turned: bool) -> TensorSpec:
    scales = [] if tensor.quantization is None else tensor.quantization.scale
    is_quantized = scales is not None and len(scales) == 1
    return replace(
        spec,
        shape=tuple(int(size) for size in tensor.shape),
        dtype=type_name(tensor).lower(),
        layout=Layout.NHWC if turned else spec.layout,
        scale=float(scales[0]) if is_quantized else None,
        zero_point=int(tensor.quantization.zeroPoint[0]) if is_quantized else None,
    )
