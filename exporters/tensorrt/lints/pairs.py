"""Pairs: Q/DQ where it costs or breaks something, between operators without weights.

Source: docs.nvidia.com TensorRT, "Explicit Quantization"; NVIDIA/TensorRT#2592 (Pad), #4366
(Concat).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tensorrt.lints.finding import Breach
from edgeship.exporters.tensorrt.lints.view import View, input_of
from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLOAT_READERS: Final = frozenset(
    {"InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"}
)
"""Computed in float whatever is before them."""
_PARAMETERS: Final = {
    "Clip": 1,
    "Expand": 1,
    "Gather": 1,
    "OneHot": 1,
    "Pad": 1,
    "Reshape": 1,
    "Resize": 1,
    "Slice": 1,
    "Split": 1,
    "Squeeze": 1,
    "Tile": 1,
    "TopK": 1,
    "Unsqueeze": 1,
}
"""Operators whose inputs from this position on are shapes, indices or fill values (ONNX)."""
_INTEGERS: Final = frozenset({"BOOL", "INT32", "INT64", "UINT8"})


def concat_scales(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """What a Concat joins has one scale."""
    for node in view.of_type("Concat"):
        scales = set()
        for name in node.input:
            dequantizer = view.dequantizer(name)
            values = None if dequantizer is None else view.numbers(input_of(dequantizer, 1))
            if values is not None:
                scales.add(values.tobytes())
        if len(scales) > 1:
            yield Breach(
                where=node,
                what=f"its quantized inputs have {len(scales)} scales",
                remedy="give them one scale, the largest",
            )


def pair_after_pad(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Between Pad and convolution stands nothing: they become one layer."""
    for node in view.of_type("QuantizeLinear"):
        pad = view.producers.get(input_of(node, 0))
        if pad is None or pad.op_type != "Pad":
            continue
        for reader, _ in view.after_pair(node):
            if reader.op_type in ("Conv", "ConvTranspose"):
                yield Breach(
                    where=node,
                    what=f"it stands between {pad.name} and {reader.name}",
                    remedy="quantize what is padded instead",
                )
                break


def double_pair(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """A tensor is quantized once, for all that read it."""
    seen: dict[str, str] = {}
    for node in view.of_type("QuantizeLinear"):
        tensor = input_of(node, 0)
        if not tensor:
            continue
        if tensor in seen:
            what = f"{tensor} is already quantized by {seen[tensor]}"
            yield Breach(where=node, what=what, remedy="let its readers share one pair")
        elif view.dequantizer(tensor) is not None:
            what = f"it quantizes again what {view.producers[tensor].name} dequantized"
            yield Breach(where=node, what=what, remedy="keep one pair")
        seen.setdefault(tensor, node.name)


def pair_on_shapes(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Shapes, indices and fill values are not quantized."""
    for node in view.nodes:
        start = _PARAMETERS.get(node.op_type)
        for name in node.input[start:] if start is not None else ():
            if name and view.dequantizer(name) is not None:
                what = f"{name}, a parameter of it, is quantized"
                yield Breach(where=node, what=what, remedy="remove the pair")
    for node in view.of_type("QuantizeLinear"):
        kind = view.kinds.get(input_of(node, 0))
        if kind in _INTEGERS:
            what = f"it quantizes a tensor of {kind}"
            yield Breach(where=node, what=what, remedy="remove the pair")


def pair_before_float(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """What is computed in float reads floats."""
    for node in view.of_type(*_FLOAT_READERS):
        if view.dequantizer(input_of(node, 0)) is not None:
            what = "it reads a dequantized tensor, and is computed in float"
            yield Breach(where=node, what=what, remedy="let it read the tensor before the pair")


def pair_at_output(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """What the graph gives is not rounded to 8 bits."""
    for value in view.proto.graph.output:
        dequantizer = view.dequantizer(value.name)
        if dequantizer is not None:
            what = f"the output {value.name} is quantized"
            yield Breach(where=dequantizer, what=what, remedy="leave the output float")


def lone_quantizer(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Between the two of a pair there is nothing."""
    for node in view.of_type("QuantizeLinear"):
        readers = [reader for reader, _ in view.consumers(node)]
        others = [reader for reader in readers if reader.op_type != "DequantizeLinear"]
        if others or not readers:
            found = f"{others[0].op_type} {others[0].name}" if others else "nothing"
            what = f"{found} reads its integers, not DequantizeLinear"
            yield Breach(where=node, what=what, remedy="put DequantizeLinear right behind it")
