"""Placement: which tensors pass through QuantizeLinear and DequantizeLinear, and who reads that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeship.exporters.structure import has_attention
from edgeship.exporters.tensorrt.eligibility import SIZES, Reason, linear_nodes, refusal
from edgeship.exporters.tensorrt.neighbours import neighbour_takers
from edgeship.exporters.tensorrt.scale_groups import scale_groups
from edgeship.exporters.tensorrt.wiring import Wiring, attributes_of

if TYPE_CHECKING:
    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.tensorrt.wiring import Taker


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the pairs of a Graph go.

    Attributes:
        activations: Tensor by the input of a node that reads it quantized.
        weights: Axis of the output channels by the input of a node; None: one scale for all.
        groups: By quantized tensor, the name that it shares one scale under.
        refused: Why a node of `LINEAR` is not quantized, by its name.
    """

    activations: Mapping[Taker, str]
    weights: Mapping[Taker, int | None]
    groups: Mapping[str, str]
    refused: Mapping[str, Reason]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that have a pair, each once."""
        return tuple(dict.fromkeys(self.activations.values()))


def placement(
    proto: onnx.ModelProto,
    ranges: Ranges,
    *,
    kept: Collection[str] = (),
    forced: Collection[str] = (),
) -> Placement:
    """Decide by the structure of a Graph and by what was seen of its tensors.

    Inputs and weights of convolutions and products of matrices are quantized, nothing else for
    its own sake; a net with attention keeps everything beside them in float. In other nets
    whatever reads a quantized tensor reads the same pair, and so do the skip branch of a residual
    Add, pools and Concat where what surrounds them is quantized: see `neighbour_takers`.

    Source: docs.nvidia.com TensorRT, "Explicit Quantization", Q/DQ layer-placement recommendations.

    Args:
        proto: A Graph with static shapes; not modified.
        ranges: Of the tensors in `observed_tensors`.
        kept: Names of nodes that stay in float, and read floats.
        forced: Names of nodes that are quantized though their size speaks against it.
    """
    wiring = Wiring(proto)
    activations: dict[Taker, str] = {}
    weights: dict[Taker, int | None] = {}
    refused: dict[str, Reason] = {}
    for node in linear_nodes(wiring):
        reason = Reason.RULE if node.name in kept else refusal(node, wiring)
        if reason in SIZES and node.name in forced:
            reason = None
        takers = _input_takers(node, wiring)
        if reason is None and takers is None:
            reason = Reason.PAD
        if reason is None and not all(_is_seen(wiring.tensor(one), ranges) for one in takers or ()):
            reason = Reason.RANGE
        if reason is not None:
            refused[node.name] = reason
            continue
        activations |= {taker: wiring.tensor(taker) for taker in takers or ()}
        if wiring.is_constant(node.input[1]):
            weights[node.name, 1] = _channel_axis(node, wiring)
    if not has_attention(proto):
        quantized = [node for node in linear_nodes(wiring) if node.name not in refused]
        able = {name for name in wiring.floats if _is_seen(name, ranges)}
        found = neighbour_takers(wiring, activations, quantized, able=able, kept={*kept, *refused})
        activations |= {taker: wiring.tensor(taker) for taker in found}
    return Placement(
        activations=activations,
        weights=weights,
        groups=scale_groups(wiring, activations),
        refused=refused,
    )


def _is_seen(tensor: str, ranges: Ranges) -> bool:
    """Whether there is something to make a scale of: a tensor of zeros gives none."""
    item = ranges.by_name.get(tensor)
    return item is not None and tensor not in ranges.masks and max(-item.low, item.high) > 0


def _input_takers(node: onnx.NodeProto, wiring: Wiring) -> list[Taker] | None:
    """What is quantized for a node: its activations, or what is padded into one of them.

    TensorRT makes Pad and Conv one layer unless a pair stands between them (TensorRT#2592). None
    where the Pad brings in another value than 0: it would have to be quantized with the rest.
    """
    takers: list[Taker] = []
    for index, name in enumerate(node.input[:2]):
        if wiring.is_constant(name):
            continue
        pad = wiring.producer(name)
        if pad is None or pad.op_type != "Pad" or node.op_type not in ("Conv", "ConvTranspose"):
            takers.append((node.name, index))
        elif _is_neutral_pad(pad, wiring):
            takers.append((pad.name, 0))
        else:
            return None
    return takers


def _is_neutral_pad(pad: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether it brings in nothing but zeros or values of its input."""
    mode = attributes_of(pad).get("mode", b"constant")
    value = pad.input[2] if len(pad.input) > 2 else ""
    if mode != b"constant" or not value:
        return True
    return wiring.is_constant(value) and not wiring.constant(value).any()


def _channel_axis(node: onnx.NodeProto, wiring: Wiring) -> int | None:
    """The axis of the output channels in the weight; None for a stack of matrices."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if attributes_of(node).get("transB") else 1
        case _:
            return 1 if len(wiring.shape(node.input[1])) == 2 else None
