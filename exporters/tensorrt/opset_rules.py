"""Opset rules: how one operator of opset 18 is said in opset 13 to 17."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx

from edgeship.exporters.tensorrt.opset_site import Site

SAME: Final = frozenset(
    {
        "Add",
        "CumSum",
        "Div",
        "GreaterOrEqual",
        "Identity",
        "LeakyRelu",
        "LessOrEqual",
        "Mul",
        "PRelu",
        "Pow",
        "Relu",
        "Sub",
        "Where",
    }
)
"""Defined anew since opset 13 for more types alone (onnx docs/Changelog.md, versions 14 to 18)."""


Rule = Callable[[Site], Iterator[onnx.NodeProto]]


def _reduce(site: Site) -> Iterator[onnx.NodeProto]:
    """Axes are an attribute before opset 18; those of ReduceSum are an input since 13."""
    axes = site.constant_input(1, "axes")
    is_noop = bool(site.attributes.get("noop_with_empty_axes", 0))
    site.drop("noop_with_empty_axes")
    del site.node.input[1:]
    if axes is not None and axes.size:
        site.give("axes", [int(axis) for axis in axes])
    elif is_noop:
        site.refuse("over no axes")
    yield site.node


def _split(site: Site) -> Iterator[onnx.NodeProto]:
    """The number of parts is no attribute before opset 18; the last one may be smaller."""
    count = site.attributes.get("num_outputs")
    if count is not None:
        shape = site.wiring.shape(site.input(0))
        axis = site.attributes.get("axis", 0)
        assert isinstance(axis, int)
        assert isinstance(count, int)
        size = shape[axis]
        part = -(-size // count)
        parts = np.array([part] * (count - 1) + [size - part * (count - 1)], np.int64)
        site.drop("num_outputs")
        del site.node.input[1:]
        site.node.input.append(site.add_constant(parts, "sizes"))
    yield site.node


def _pad(site: Site) -> Iterator[onnx.NodeProto]:
    """Pads of chosen axes become pads of all."""
    axes = site.constant_input(3, "axes")
    if site.attributes.get("mode") == b"wrap":
        site.refuse("with mode wrap")
    if axes is not None:
        pads = site.constant_input(1, "pads")
        assert pads is not None
        rank = site.rank(site.input(0))
        full = np.zeros(2 * rank, np.int64)
        for index, axis in enumerate(axes):
            full[axis % rank] = pads[index]
            full[rank + axis % rank] = pads[len(axes) + index]
        site.node.input[1] = site.add_constant(full, "pads")
        del site.node.input[3:]
        if not site.input(2):
            del site.node.input[2:]
    yield site.node


def _resize(site: Site) -> Iterator[onnx.NodeProto]:
    """Scales or sizes of chosen axes become those of all; what opset 18 added must be unused."""
    attributes = site.attributes
    if attributes.get("antialias", 0):
        site.refuse("with antialias")
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        site.refuse("that keeps the aspect ratio")
    axes = attributes.get("axes")
    if axes is not None:
        if site.input(1):
            site.refuse("with a region and axes")
        assert isinstance(axes, list)
        shape = site.wiring.shape(site.input(0))
        for index, whole in ((2, np.ones(len(shape), np.float32)), (3, np.array(shape, np.int64))):
            chosen = site.constant_input(index, "scales or sizes")
            if chosen is not None and chosen.size:
                whole[[axis % len(shape) for axis in axes]] = chosen
                site.node.input[index] = site.add_constant(whole, "scales")
    site.drop("antialias", "axes", "keep_aspect_ratio_policy")
    yield site.node


def _reshape(site: Site) -> Iterator[onnx.NodeProto]:
    """A 0 copies the input's size unless `allowzero`, which is new in opset 14."""
    if site.attributes.get("allowzero", 0):
        shape = site.constant_input(1, "a shape")
        if shape is not None and not shape.all():
            site.refuse("to a size of 0")
    site.drop("allowzero")
    yield site.node


def _scatter(site: Site) -> Iterator[onnx.NodeProto]:
    """Reductions came with opset 16, `max` and `min` with 18."""
    reduction = site.attributes.get("reduction", b"none")
    if reduction == b"none":
        site.drop("reduction")
    elif site.opset < 16 or reduction not in (b"add", b"mul"):
        site.refuse(f"with reduction {reduction!r}")
    yield site.node


def _shape(site: Site) -> Iterator[onnx.NodeProto]:
    """A part of the shape is a constant: shapes are static."""
    attributes = site.attributes
    if "start" not in attributes and "end" not in attributes:
        yield site.node
        return
    shape = site.wiring.shape(site.input(0))
    first, last = attributes.get("start", 0), attributes.get("end")
    assert isinstance(first, int)
    assert last is None or isinstance(last, int)
    values = np.array(shape[first:last], np.int64)
    name = site.node.name
    source = site.add_constant(values, "value")
    yield onnx.helper.make_node("Identity", [source], [site.node.output[0]], name=name)


def _recurrent(site: Site) -> Iterator[onnx.NodeProto]:
    """`layout` is new in opset 14."""
    if site.attributes.get("layout", 0):
        site.refuse("with the batch first")
    site.drop("layout")
    yield site.node


def _hard_swish(site: Site) -> Iterator[onnx.NodeProto]:
    """X * HardSigmoid(x), the function that its schema gives."""
    gate = site.step("HardSigmoid", [site.input(0)], "gate", alpha=1 / 6, beta=0.5)
    yield gate
    inputs = [site.input(0), gate.output[0]]
    yield onnx.helper.make_node("Mul", inputs, list(site.node.output), name=site.node.name)


def _mish(site: Site) -> Iterator[onnx.NodeProto]:
    """X * tanh(softplus(x)), the function that its schema gives."""
    soft = site.step("Softplus", [site.input(0)], "softplus")
    gate = site.step("Tanh", [soft.output[0]], "gate")
    yield from (soft, gate)
    inputs = [site.input(0), gate.output[0]]
    yield onnx.helper.make_node("Mul", inputs, list(site.node.output), name=site.node.name)


def _layer_norm(site: Site) -> Iterator[onnx.NodeProto]:
    """Mean, difference, variance: the form that ONNX Runtime and TensorRT make one layer again."""
    if len([name for name in site.node.output if name]) > 1:
        site.refuse("that gives mean or variance too")
    axis, epsilon = site.attributes.get("axis", -1), site.attributes.get("epsilon", 1e-5)
    assert isinstance(axis, int)
    source = site.input(0)
    rank = site.rank(source)
    axes = list(range(axis % rank - rank, 0))
    two = site.add_constant(np.asarray(2, np.float32), "two")
    least = site.add_constant(np.asarray(epsilon, np.float32), "epsilon")
    mean = site.step("ReduceMean", [source], "mean", axes=axes, keepdims=1)
    centred = site.step("Sub", [source, mean.output[0]], "centred")
    square = site.step("Pow", [centred.output[0], two], "square")
    variance = site.step("ReduceMean", [square.output[0]], "variance", axes=axes, keepdims=1)
    positive = site.step("Add", [variance.output[0], least], "positive")
    deviation = site.step("Sqrt", [positive.output[0]], "deviation")
    normal = site.step("Div", [centred.output[0], deviation.output[0]], "normal")
    yield from (mean, centred, square, variance, positive, deviation, normal)
    last = normal
    if site.input(2):
        last = site.step("Mul", [normal.output[0], site.input(1)], "scaled")
        yield last
    factors = [last.output[0], site.input(2) or site.input(1)]
    kind = "Add" if site.input(2) else "Mul"
    yield onnx.helper.make_node(kind, factors, list(site.node.output), name=site.node.name)


RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        ),
        _reduce,
    ),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scatter),
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_norm,
    "Mish": _mish,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Split": _split,
}
"""By operator; each applies where the operator was defined anew after the opset that is wanted."""
