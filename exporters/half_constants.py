"""Constants that float16 does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF_MAX: Final = 65504.0
"""Largest finite float16 (IEEE 754-2008, binary16: (2 - 2**-10) * 2**15)."""
HALF_NORMAL: Final = 2.0**-14
"""Smallest normal float16 (IEEE 754-2008, binary16)."""
HALF_SMALLEST: Final = 2.0**-24
"""Smallest float16 above 0, 6e-8 (IEEE 754-2008, binary16, subnormal)."""
_HALF_ULP: Final = 2.0**-11
"""Largest relative error of rounding to a normal float16 (IEEE 754-2008, binary16)."""
_BIAS: Final = 2
"""Position of the bias of Conv, ConvTranspose and Gemm."""


def float_constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """float32 initializers and Constant nodes by tensor name."""
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and attribute.t.data_type == onnx.TensorProto.FLOAT:
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
            elif attribute.name in ("value_float", "value_floats"):
                value = onnx.helper.get_attribute_value(attribute)
                found[node.output[0]] = np.asarray(value, np.float32)
    return found


def lost_constants(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By name, a value of each constant that `node` reads and float16 would not keep.

    Beyond 65504 a value would become infinite; infinities themselves are kept, and so is NaN. Of
    weights that enter a sum together (an output channel, a row of a table, a bias) only the loss
    of all is one: a value below 6e-8 beside larger ones is less than the rounding of those. Every
    other constant counts by itself, and may not move by more than a normal float16 is rounded.
    """
    found = {}
    for index, name in enumerate(node.input):
        if name in constants:
            value = _lost_value(node, index, constants[name])
            if value is not None:
                found[name] = value
    return found


def is_beyond_half(values: np.ndarray) -> bool:
    """Whether a finite value is larger in magnitude than every float16."""
    return bool((np.abs(values[np.isfinite(values)]) > HALF_MAX).any())


def vanished_count(values: np.ndarray) -> int:
    """How many values other than 0 become 0."""
    with np.errstate(over="ignore"):
        return int(((values != 0) & (values.astype(np.float16) == 0)).sum())


def _lost_value(node: onnx.NodeProto, index: int, values: np.ndarray) -> float | None:
    """The largest value beyond 65504, else the smallest that is lost."""
    finite = values[np.isfinite(values)]
    if finite.size and float(np.abs(finite).max()) > HALF_MAX:
        return float(finite[np.abs(finite).argmax()])
    if _is_summed(node, index):
        peaks = _peaks(values, _channel_axis(node, index))
        lost = peaks[(peaks > 0) & (peaks < HALF_SMALLEST)]
    else:
        error = np.abs(finite.astype(np.float16).astype(np.float32) - finite)
        lost = finite[error > _HALF_ULP * np.abs(finite)]
    return float(lost[np.abs(lost).argmin()]) if lost.size else None


def _is_summed(node: onnx.NodeProto, index: int) -> bool:
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub")
    return node.op_type in kinds or (node.op_type == "Gather" and index == 0)


def _channel_axis(node: onnx.NodeProto, index: int) -> int | None:
    """The axis whose entries are used apart; None where all are used together."""
    attributes: dict[str, int] = {item.name: item.i for item in node.attribute}
    match node.op_type:
        case "Conv" if index != _BIAS:
            return 0
        case "ConvTranspose" if index != _BIAS:
            return 1
        case "Gemm" if index == 1:
            return 0 if attributes.get("transB") else 1
        case "MatMul" if index == 1:
            return -1
        case "Gather":
            return attributes.get("axis", 0)
        case _:
            return None


def _peaks(values: np.ndarray, axis: int | None) -> np.ndarray:
    """Largest magnitude of each entry along `axis`, or of all."""
    magnitudes = np.abs(values)
    if axis is None or values.ndim < 2:
        return np.atleast_1d(magnitudes.max(initial=0.0))
    others = tuple(other for other in range(values.ndim) if other != axis % values.ndim)
    peaks: np.ndarray = magnitudes.max(axis=others, initial=0.0)
    return peaks
