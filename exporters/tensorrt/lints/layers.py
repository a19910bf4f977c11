"""Layers: what is quantized of the operators with weights, and what stays float.

Source: docs.nvidia.com TensorRT, "Explicit Quantization", Q/DQ layer-placement recommendations;
NVIDIA Model Optimizer 0.47, onnx/quantization/graph_utils.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edgeship.exporters.structure import LINEAR, MOVERS
from edgeship.exporters.tensorrt.lints.finding import Breach
from edgeship.exporters.tensorrt.lints.parameters import axis_of
from edgeship.exporters.tensorrt.lints.view import MARKS, View, attribute, input_of
from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

_LEAST: Final = 16
"""Channels of a convolution, and sides of a matrix, that INT8 kernels are made for."""
_STEP: Final = 8
_ACTIVATIONS: Final = frozenset(
    {
        "BatchNormalization",
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Swish",
        "Tanh",
    }
)
"""What TensorRT makes one layer with the convolution or product before it."""


def quantized_bias(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """TensorRT has no INT32 DequantizeLinear: biases are floats."""
    for node in view.of_type("Conv", "ConvTranspose", "Gemm"):
        if view.dequantizer(input_of(node, 2)) is not None:
            yield Breach(where=node, what="its bias is quantized", remedy="leave the bias float")
    for node in view.of_type("Add"):
        names = list(node.input)
        for bias, other in (names, names[::-1]) if len(names) == 2 else ():
            is_weight = bias not in view.constants and view.weight_of(bias) is not None
            producer = view.producers.get(other)
            if is_weight and producer is not None and producer.op_type == "MatMul":
                what = f"the bias that it adds to {producer.name} is quantized"
                yield Breach(where=node, what=what, remedy="leave the bias float")


def quantized_output(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """A pair between a layer and its activation or bias keeps them from being one layer."""
    for node in view.of_type("QuantizeLinear"):
        layer = view.producers.get(input_of(node, 0))
        if layer is None or layer.op_type not in LINEAR:
            continue
        broken = [
            reader
            for reader, _ in view.after_pair(node)
            if reader.op_type in _ACTIVATIONS
            or (reader.op_type == "Add" and any(name in view.constants for name in reader.input))
        ]
        if broken:
            yield Breach(
                where=node,
                what=f"it stands between {layer.name} and {broken[0].op_type} {broken[0].name}",
                remedy=f"quantize what {broken[0].op_type} gives instead",
            )


def residual_add(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Of a residual Add the skip branch alone is quantized: the layer fuses with the Add."""
    for node in view.of_type("Add"):
        if len(node.input) != 2 or any(view.weight_of(name) is not None for name in node.input):
            continue
        fusable = False
        broken = None
        for name in node.input:
            dequantizer = view.dequantizer(name)
            before = name if dequantizer is None else view.before_pair(dequantizer)
            if not _is_layer_output(view, before):
                continue
            if dequantizer is None:
                fusable = True
            else:
                broken = before
        if broken is not None and not fusable:
            yield Breach(
                where=node,
                what=f"the layer that gives {broken} cannot fuse with it through a pair",
                remedy="quantize the skip branch alone",
            )


def weight_alone(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """A layer with a quantized weight has a quantized activation."""
    for node in view.of_type(*LINEAR):
        weight = _weight(view, node)
        if weight is not None and not _is_quantized(view, input_of(node, 0)):
            yield Breach(
                where=node,
                what="its weight is quantized and its activation is not",
                remedy="quantize both, or neither",
            )


def weight_granularity(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Weights are quantized per output channel."""
    for node in view.of_type(*LINEAR):
        weight = _weight(view, node)
        if weight is None:
            continue
        dequantizer, shape = weight
        axis = _channel_axis(node, shape)
        scales = view.shapes.get(input_of(dequantizer, 1), ())
        count = math.prod(size or 0 for size in scales)
        if axis is None or shape[axis] in (None, 1):
            continue
        if count == 1:
            what = f"its weight has one scale for {shape[axis]} output channels"
            yield Breach(where=node, what=what, remedy="quantize the weight per channel")


def weight_axis(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """The axis of a weight's scales is that of the output channels."""
    for node in view.of_type(*LINEAR):
        weight = _weight(view, node)
        if weight is None:
            continue
        dequantizer, shape = weight
        axis = _channel_axis(node, shape)
        scales = view.shapes.get(input_of(dequantizer, 1), ())
        count = math.prod(size or 0 for size in scales)
        found = axis_of(dequantizer, len(shape))
        if axis is not None and count > 1 and 0 <= found < len(shape) and found != axis:
            yield Breach(
                where=node,
                what=f"its weight is quantized along axis {found}",
                remedy=f"quantize it along axis {axis}, its output channels",
            )


def weight_codes(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Codes of a weight are from -127 to 127, by either way to write them."""
    for node in view.of_type(*LINEAR):
        weight = _weight(view, node)
        codes = None if weight is None else view.values(input_of(weight[0], 0))
        if codes is not None and codes.dtype == "int8" and (codes == -128).any():
            what = f"{int((codes == -128).sum())} codes of its weight are -128"
            yield Breach(where=node, what=what, remedy="use scales of amax / 127")


def narrow_convolution(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """With few channels INT8 is slower than FP16."""
    for node in view.of_type("Conv", "ConvTranspose"):
        weight = _weight(view, node)
        if weight is None or len(weight[1]) < 3 or None in weight[1]:
            continue
        first, second, *kernel = (size or 0 for size in weight[1])
        groups = attribute(node, "group", 1)
        channels = (first, second * groups if isinstance(groups, int) else second)
        is_even = all(count % _STEP == 0 for count in channels) and len(set(kernel)) == 1
        if min(channels) < _LEAST and not is_even and not _is_first(view, node):
            what = f"a convolution between {channels[0]} and {channels[1]} channels is quantized"
            yield Breach(where=node, what=what, remedy="leave it in FP16")


def small_matrix(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Products of small matrices, and of vectors, are not faster in INT8."""
    for node in view.of_type("Gemm", "MatMul"):
        weight = _weight(view, node)
        left = view.shapes.get(input_of(node, 0), ())
        if weight is None or min(len(weight[1]), len(left)) < 2 or None in (*left, *weight[1]):
            continue
        shape = [size or 0 for size in weight[1]]
        depth, columns = shape[-2:] if not attribute(node, "transB", 0) else shape[:-3:-1]
        rows = left[-2] if len(shape) > 2 else math.prod(size or 0 for size in left) // (depth or 1)
        if min(depth, columns) < _LEAST or rows == 1:
            what = f"a product of [{rows}, {depth}] by [{depth}, {columns}] is quantized"
            yield Breach(where=node, what=what, remedy="leave it in FP16")


def unfolded_norm(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """BatchNorm is folded before pairs are put in."""
    if any(True for _ in view.of_type("QuantizeLinear")):
        for node in view.of_type("BatchNormalization"):
            what = "a BatchNormalization is left in a quantized graph"
            yield Breach(where=node, what=what, remedy="fold it into the layer before it")


def _weight(
    view: View, node: onnx.NodeProto
) -> tuple[onnx.NodeProto, tuple[int | None, ...]] | None:
    """DequantizeLinear and shape of a layer's quantized weight; None where it has none."""
    dequantizer = view.dequantizer(input_of(node, 1))
    if dequantizer is None:
        return None
    name = view.before_pair(dequantizer)
    return (dequantizer, tuple(view.constants[name].dims)) if name in view.constants else None


def _channel_axis(node: onnx.NodeProto, shape: tuple[int | None, ...]) -> int | None:
    """Axis of the output channels; None where one scale may be meant for all."""
    match node.op_type:
        case "Conv":
            axis: int | None = 0
        case "ConvTranspose":
            axis = 1 if attribute(node, "group", 1) == 1 else None
        case "Gemm":
            axis = 0 if attribute(node, "transB", 0) else 1
        case _:
            axis = 1 if len(shape) == 2 else None
    return axis if axis is not None and axis < len(shape) else None


def _is_layer_output(view: View, tensor: str) -> bool:
    """Whether a layer gives it, with or without a bias added."""
    producer = view.producers.get(tensor)
    if producer is not None and producer.op_type == "Add":
        biased = [name for name in producer.input if view.weight_of(name) is None]
        is_bias = len(biased) == 1
        producer = view.producers.get(biased[0]) if is_bias else None
    return producer is not None and producer.op_type in LINEAR


def _is_quantized(view: View, tensor: str) -> bool:
    """Whether its values come from a DequantizeLinear, moved or not."""
    seen: set[str] = set()
    while tensor not in seen:
        seen.add(tensor)
        producer = view.producers.get(tensor)
        if producer is None or producer.op_type == "DequantizeLinear":
            return producer is not None
        if producer.op_type not in MOVERS or not producer.input:
            return False
        tensor = producer.input[0]
    return False


def _is_first(view: View, node: onnx.NodeProto) -> bool:
    """Whether it reads an input of the graph, quantized or moved."""
    inputs = {value.name for value in view.proto.graph.input}
    tensor, seen = input_of(node, 0), set[str]()
    while tensor not in inputs | seen:
        seen.add(tensor)
        producer = view.producers.get(tensor)
        if producer is None or not producer.input:
            return False
        if producer.op_type not in MOVERS | {*MARKS, "Cast"}:
            return False
        tensor = producer.input[0]
    return tensor in inputs
