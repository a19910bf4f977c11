"""What is said of a float16 file: which nodes stay in float32, and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from edgeship.exporters.half_placement import Why
from edgeship.exporters.structure import MOVERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from edgeship.exporters.half import HalfGraph
    from edgeship.exporters.half_placement import Stay

_NAMED: Final = 5
"""Nodes that a note names; of the others it gives the number."""


def stay_notes(proto: onnx.ModelProto, half: HalfGraph) -> list[str]:
    """Lines for the manifest; `proto` is the Graph that `half` was made of."""
    kinds = {node.name: node.op_type for node in proto.graph.node}
    return [
        *_count_note(kinds[name] for name in half.stays),
        *_why_notes(half.stays),
        *_vanished_note(half.vanished),
    ]


def _count_note(kinds: Iterator[str]) -> list[str]:
    in_float = Counter(kind for kind in kinds if kind not in MOVERS)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(in_float.items()))
    return [f"computed in float32: {counted}"] if counted else []


def _why_notes(stays: Mapping[str, Stay]) -> Iterator[str]:
    found: dict[Why, list[str]] = {why: [] for why in Why}
    for name, stay in stays.items():
        found[stay.why].append(_described(name, stay))
    texts = {
        Why.RANGE: "in float32 for the size of their values",
        Why.CONSTANT: "in float32 for constants that float16 does not hold",
        Why.MASK: "in float32 with a mask, which is not clipped",
    }
    for why, text in texts.items():
        if found[why]:
            yield f"{text}: {_listed(found[why])}"


def _described(name: str, stay: Stay) -> str:
    match stay.why:
        case Why.CONSTANT:
            return f"{name} ({stay.tensor} holds {stay.value:.3g})"
        case Why.RANGE if stay.value:
            return f"{name} ({stay.tensor} reaches {stay.value:.3g})"
        case Why.RANGE:
            return f"{name} (nothing was seen of {stay.tensor})"
        case _:
            return name


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _vanished_note(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} weights below 6e-8 are 0: less than the rounding of those beside them"]
