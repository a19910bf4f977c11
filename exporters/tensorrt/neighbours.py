"""Neighbours: nodes without weights that read a quantized tensor, so that INT8 is not left."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from edgeship.exporters.structure import MOVERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import onnx

    from edgeship.exporters.tensorrt.wiring import Taker, Wiring

_POOLS: Final = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool"})
_CLAMPS: Final = frozenset({"Relu", "Clip"})
"""Fused into the layer before them: what they give has that layer's precision."""
_PASSED: Final = MOVERS | _POOLS | _CLAMPS
_FLOAT_READERS: Final = frozenset(
    {
        "Cast",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "Shape",
        "Softmax",
    }
)
"""No pair around these (rules of TensorRT): their precision is what the net needs."""


def neighbour_takers(
    wiring: Wiring,
    chosen: Collection[Taker],
    quantized: Sequence[onnx.NodeProto],
    *,
    able: Collection[str],
    kept: Collection[str],
) -> list[Taker]:
    """Inputs that read quantized values beside those of the layers with weights.

    Of a residual Add the skip branch alone: the convolution on the other one is fused with the
    Add, and gives INT8 (TensorRT#1992). Pools whose input comes from quantized layers. All inputs
    of a Concat that leads to quantized layers. And all that read a tensor that has a pair anyhow.

    Args:
        wiring: Of the Graph.
        chosen: Inputs of the layers with weights.
        quantized: Those layers.
        able: Tensors that a scale can be made of.
        kept: Names of nodes that read floats.

    Returns:
        In the file's order.
    """
    search = _Search(wiring, chosen, {node.name for node in quantized}, able, kept)
    while search.grow():
        pass
    positions = {name: position for position, name in enumerate(wiring.nodes)}
    found = search.takers - set(chosen)
    return sorted(found, key=lambda taker: (positions[taker[0]], taker[1]))


class _Search:
    def __init__(
        self,
        wiring: Wiring,
        chosen: Collection[Taker],
        quantized: set[str],
        able: Collection[str],
        kept: Collection[str],
    ) -> None:
        self._wiring = wiring
        self._quantized = quantized
        self._able = able
        self._kept = kept
        self._fused = dict(_fused_branches(wiring, quantized))
        self.takers = set(chosen)

    def grow(self) -> bool:
        """Add what follows from the takers that there are; whether there was anything."""
        found = {taker for taker in self._candidates() if taker not in self.takers}
        self.takers |= found
        return bool(found)

    def _candidates(self) -> Iterator[Taker]:
        tensors = {self._wiring.tensor(taker) for taker in self.takers}
        for node in self._wiring.nodes.values():
            if node.name in self._kept or node.op_type in _FLOAT_READERS:
                continue
            wanted = self._is_wanted(node)
            for index, name in enumerate(node.input):
                if name not in self._able or index == self._fused.get(node.name):
                    continue
                if wanted or (name in tensors and node.op_type != "Concat"):
                    yield node.name, index

    def _is_wanted(self, node: onnx.NodeProto) -> bool:
        """Whether its inputs get pairs of their own."""
        if node.op_type in _POOLS:
            return self._is_given_in_int8(node.input[0])
        if node.op_type == "Concat":
            is_able = all(name in self._able for name in node.input)
            return is_able and self._leads_to_int8(node.output[0])
        is_residual = node.op_type == "Add" and node.name in self._fused
        return is_residual and self._leads_to_int8(node.output[0])

    def _is_given_in_int8(self, tensor: str) -> bool:
        """Whether it comes from a quantized layer, through what is fused with that."""
        producer = self._wiring.producer(tensor)
        if producer is None:
            return False
        if producer.name in self._quantized or producer.name in self._fused:
            return True
        is_passed = producer.op_type in _PASSED
        return is_passed and any(self._is_given_in_int8(name) for name in producer.input)

    def _leads_to_int8(self, tensor: str) -> bool:
        """Whether somebody reads it quantized, directly or behind what moves or clamps it."""
        pending, seen = [tensor], {tensor}
        while pending:
            name = pending.pop()
            for taker, node in zip(
                self._wiring.readers(name), self._wiring.reading_nodes(name), strict=True
            ):
                if taker in self.takers:
                    return True
                if node.op_type in _PASSED:
                    pending += [output for output in node.output if output not in seen]
                    seen.update(node.output)
        return False


def _fused_branches(wiring: Wiring, quantized: set[str]) -> Iterator[tuple[str, int]]:
    """By residual Add, the input that stays float: the product that it alone reads.

    Of two such inputs it is the one with more layers behind it: the other is the shortcut.
    """
    depths = _depths(wiring)
    for node in wiring.nodes.values():
        if node.op_type != "Add" or len(wiring.activations(node)) != 2:
            continue
        if wiring.shape(node.input[0]) != wiring.shape(node.input[1]):
            continue
        found = [
            (depths[name], index)
            for index, name in enumerate(node.input)
            if _is_product(name, wiring, quantized)
            and len(wiring.readers(name)) == 1
            and name not in wiring.outputs
        ]
        if found:
            yield node.name, max(found)[1]


def _is_product(tensor: str, wiring: Wiring, quantized: set[str]) -> bool:
    """Whether a quantized layer gives it, with or without a bias added."""
    producer = wiring.producer(tensor)
    if producer is None:
        return False
    if producer.op_type == "Add" and any(wiring.is_constant(name) for name in producer.input):
        (source,) = wiring.activations(producer) or [""]
        producer = wiring.producer(source)
    return producer is not None and producer.name in quantized


def _depths(wiring: Wiring) -> dict[str, int]:
    """Most nodes on a way from an input to each tensor."""
    depths: dict[str, int] = defaultdict(int)
    for node in wiring.nodes.values():
        depth = 1 + max((depths[name] for name in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths
