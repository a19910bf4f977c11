"""Scale groups: quantized tensors that hold the same values, and therefore share one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.structure import MOVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeship.exporters.tensorrt.wiring import Taker, Wiring

_SELECTORS: Final = MOVERS | {"MaxPool"}
"""Give nothing but values of their inputs."""


def scale_groups(wiring: Wiring, activations: Mapping[Taker, str]) -> dict[str, str]:
    """By quantized tensor, the first one of its group.

    What a Concat joins must have one scale, or TensorRT requantizes each of its inputs
    (TensorRT#4366). What only moves values keeps their scale, so that the second rounding changes
    nothing, and its pair can be moved through it.

    Args:
        wiring: Of the Graph.
        activations: Tensor by the input of a node that reads it quantized.
    """
    leaders = {name: name for name in activations.values()}

    def leader(name: str) -> str:
        while leaders[name] != name:
            name = leaders[name]
        return name

    carried: dict[str, str] = {}  # by tensor without a pair: the quantized one it has values of
    for node in wiring.nodes.values():
        if node.op_type not in _SELECTORS:
            continue
        sources = [
            activations[node.name, index] if (node.name, index) in activations else carried[name]
            for index, name in enumerate(node.input)
            if (node.name, index) in activations or name in carried
        ]
        for name in node.output:
            if sources and name in leaders:
                sources.append(name)
            elif sources:
                carried[name] = sources[0]
        for name in sources[1:]:
            first, second = sorted((leader(sources[0]), leader(name)), key=list(leaders).index)
            leaders[second] = first
    return {name: leader(name) for name in leaders}
