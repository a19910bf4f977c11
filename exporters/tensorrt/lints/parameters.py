"""Parameters of Q/DQ: scales, zero points and axes, as the parser checks them.

Source: onnx-tensorrt 8.2-GA to 10.1-GA, QuantDequantLinearHelper; TensorRT 11.4, docstring of
IQuantizeLayer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tensorrt.lints.finding import Breach
from edgeship.exporters.tensorrt.lints.view import MARKS, View, attribute, input_of
from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx

SMALLEST_NORMAL_HALF: Final = 2.0**-14
"""IEEE 754-2008, binary16: below it the significand loses bits."""
_INT32: Final = "INT32"
"""Type of a quantized bias: a rule of its own says what is wrong with it."""
_FLOATS: Final = frozenset({"BFLOAT16", "FLOAT", "FLOAT16"})
_OTHER_CODES: Final = frozenset({"FLOAT8E4M3FN", "INT4", "FLOAT4E2M1"})


def zero_point_missing(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Up to 8.6 the parser reads it unasked; ONNX quantizes to UINT8 without one."""
    for node in view.of_type(*MARKS):
        is_needed = facts.release < (9, 0) or node.op_type == "QuantizeLinear"
        if is_needed and not input_of(node, 2) and not attribute(node, "output_dtype"):
            yield Breach(
                where=node, what="it has no zero point", remedy="give it one of INT8, zero"
            )


def zero_point_type(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Integers are INT8: UINT8 is refused up to 8.6, and read as INT8 from 10.0 on."""
    for node in view.of_type(*MARKS):
        codes = input_of(node, 2) or (input_of(node, 0) if _is_dequantizer(node) else "")
        kind = view.kinds.get(codes, "INT8")
        is_known = kind in ("INT8", _INT32) or (kind in _OTHER_CODES and facts.release >= (10, 0))
        if not is_known:
            yield Breach(where=node, what=f"its integers are {kind}", remedy="make them INT8")


def zero_point_nonzero(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Quantization is symmetric."""
    for node in view.of_type(*MARKS):
        values = view.numbers(input_of(node, 2))
        if values is not None and values.any():
            yield Breach(
                where=node,
                what=f"its zero point is {values[values != 0][0]:g}",
                remedy="quantize symmetrically, with a zero point of 0",
            )


def zero_point_count(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """There are as many zero points as scales."""
    for node in view.of_type(*MARKS):
        points, scales = _count(view, input_of(node, 2)), _count(view, input_of(node, 1))
        if points is not None and scales is not None and points != scales:
            yield Breach(
                where=node,
                what=f"it has {points} zero points for {scales} scales",
                remedy="give each scale one",
            )


def scale_not_constant(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Scales are known when the engine is built."""
    for node in view.of_type(*MARKS):
        for position, name in ((1, "scale"), (2, "zero point")):
            tensor = input_of(node, position)
            if tensor and tensor not in view.constants:
                yield Breach(
                    where=node, what=f"its {name} is computed", remedy="store it as an initializer"
                )


def scale_not_positive(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """All scales are above zero, and finite."""
    for node in view.of_type(*MARKS):
        scales = _scales(view, node)
        if scales is None:
            continue
        wrong = scales[~((scales > 0) & (scales < float("inf")))]
        if wrong.size:
            yield Breach(
                where=node,
                what=f"{wrong.size} of {scales.size} scales are not above zero, like {wrong[0]:g}",
                remedy="clamp the scales of dead channels to the smallest normal number of FP16",
            )


def scale_subnormal(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """In FP16 the scale of a near-dead channel loses its bits, or becomes zero."""
    for node in view.of_type(*MARKS):
        scales = _scales(view, node)
        if scales is None or view.kinds.get(input_of(node, 1)) != "FLOAT16":
            continue
        small = scales[(scales > 0) & (scales < SMALLEST_NORMAL_HALF)]
        if small.size:
            yield Breach(
                where=node,
                what=f"{small.size} of {scales.size} FP16 scales are subnormal, like {small[0]:g}",
                remedy=f"clamp them to {SMALLEST_NORMAL_HALF:.3g}",
            )


def scale_type(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Up to 8.6 the bytes of scales are read as FP32; typed graphs have them as their data."""
    for node in view.of_type(*MARKS):
        kind = view.kinds.get(input_of(node, 1))
        floats = node.input[:1] if node.op_type == "QuantizeLinear" else node.output[:1]
        data = next((view.kinds.get(name) for name in floats), None)
        if facts.release < (9, 0) and kind not in ("FLOAT", None):
            what, remedy = f"its scale is {kind}, which is read as FP32", "write it as FP32"
            yield Breach(where=node, what=what, remedy=remedy)
        elif kind is not None and data in _FLOATS and kind != data:
            what, remedy = f"its scale is {kind}, its data {data}", "give both the same type"
            yield Breach(where=node, what=what, remedy=remedy)


def scale_count(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """One scale, or one for each channel along the axis."""
    for node in view.of_type(*MARKS):
        scales = _count(view, input_of(node, 1))
        shape = view.shapes.get(input_of(node, 0))
        axis = axis_of(node, 0 if shape is None else len(shape))
        if scales in (None, 1) or shape is None or not 0 <= axis < len(shape):
            continue
        if shape[axis] is not None and shape[axis] != scales:
            yield Breach(
                where=node,
                what=f"it has {scales} scales for {shape[axis]} channels along axis {axis}",
                remedy="give each channel one",
            )


def axis_missing(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Without the attribute ONNX means axis 1, and the parser up to 8.6 takes 0."""
    for node in view.of_type(*MARKS):
        is_per_channel = _count(view, input_of(node, 1)) not in (None, 1)
        if facts.release < (9, 0) and is_per_channel and attribute(node, "axis") is None:
            yield Breach(
                where=node,
                what="its axis is not said, which ONNX and TensorRT read differently",
                remedy="write the axis",
            )


def axis_out_of_range(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """The axis is one of the tensor."""
    for node in view.of_type(*MARKS):
        shape = view.shapes.get(input_of(node, 0))
        scales = _count(view, input_of(node, 1))
        if shape is not None and scales not in (None, 1):
            axis = axis_of(node, len(shape))
            if not 0 <= axis < len(shape):
                what = f"its axis is {axis} of a tensor with {len(shape)} axes"
                yield Breach(where=node, what=what, remedy="name the axis of its channels")


def per_channel_activation(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Only weights are quantized per channel."""
    for node in view.of_type("QuantizeLinear"):
        scales = _count(view, input_of(node, 1))
        if scales not in (None, 1) and input_of(node, 0) not in view.constants:
            yield Breach(
                where=node,
                what=f"an activation is quantized per channel, with {scales} scales",
                remedy="quantize it per tensor",
            )


def unequal_pair(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """A value comes back by the scale that it went in with."""
    for node in view.of_type("DequantizeLinear"):
        quantizer = view.producers.get(input_of(node, 0))
        if quantizer is None or quantizer.op_type != "QuantizeLinear":
            continue
        before, after = _scales(view, quantizer), _scales(view, node)
        if before is None or after is None:
            continue
        is_equal = before.shape == after.shape and bool((before == after).all())
        if not is_equal:
            yield Breach(
                where=node,
                what=f"its scales differ from those of {quantizer.name}",
                remedy="give both the same",
            )


def axis_of(node: onnx.NodeProto, rank: int) -> int:
    """Axis of the channels, from the front; 1 where the node does not say it (ONNX)."""
    axis = attribute(node, "axis", 1)
    number = axis if isinstance(axis, int) else 1
    return number + rank if number < 0 else number


def _is_dequantizer(node: onnx.NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"


def _scales(view: View, node: onnx.NodeProto) -> np.ndarray | None:
    return view.numbers(input_of(node, 1))


def _count(view: View, tensor: str) -> int | None:
    proto = view.constants.get(tensor)
    if proto is None:
        return None
    count = 1
    for size in proto.dims:
        count *= size
    return count
