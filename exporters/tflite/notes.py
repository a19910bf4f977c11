"""Notes: what a manifest says of a .tflite file, from its census."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from edgeship.exporters.tflite.census import Census, Place

_NAMED: Final = 5
"""Modules that a note names; of the others it gives the number."""


def census_notes(census: Census, precision: str, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Lines for the manifest; `kept` as in `require_integer`, what rules keep alone.

    Whatever is not there is not mentioned: a file without TRANSPOSE has no line about them.
    """
    return (
        *_precision_notes(census, precision, kept),
        *_transpose_notes(census.transposes),
        *_requantization_notes(census.requantizations),
        *_wide_notes(census),
    )


def _precision_notes(census: Census, precision: str, kept: Collection[str]) -> Iterator[str]:
    match precision:
        case "fp16":
            if census.half_weights:
                yield "weights in float16, computed in float32"
        case "dynamic":
            yield "not fully integer: dynamic range, activations are quantized at run time"
            yield from _dynamic_notes(census)
        case "int8":
            yield from _kept_notes(census, kept)
        case _:
            pass


def _dynamic_notes(census: Census) -> Iterator[str]:
    weighted = set(census.hybrid)
    if weighted:
        yield f"int8 weights: {_counted(census.hybrid)}"
    rest = [place for place in census.in_float if place not in weighted]
    if rest:
        yield f"computed in float32: {_counted(rest)}"


def _kept_notes(census: Census, kept: Collection[str]) -> Iterator[str]:
    by_rule = [place for place in census.in_float if place.tensor in kept]
    others = [place for place in census.in_float if place.tensor not in kept]
    for places, reason in ((by_rule, " by your rules"), (others, "")):
        if places:
            yield (
                f"not fully integer: {_number(len(places), 'operator')} in float{reason}:"
                f" {_counted(places)}; {_by_module(places)}"
            )


def _transpose_notes(places: Sequence[Place]) -> Iterator[str]:
    if places:
        yield f"{_number(len(places), 'TRANSPOSE operator')}: {_by_module(places)}"


def _requantization_notes(places: Sequence[Place]) -> Iterator[str]:
    if places:
        text = _number(len(places), "QUANTIZE operator")
        yield f"{text} between integer scales: {_by_module(places)}"


def _wide_notes(census: Census) -> Iterator[str]:
    if census.int16_activations:
        yield f"{_number(len(census.int16_activations), 'activation')} in int16"
    if census.int64_biases:
        yield f"{_number(len(census.int64_biases), 'bias', 'biases')} in int64"


def _counted(places: Sequence[Place]) -> str:
    counts = Counter(place.operator for place in places)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _by_module(places: Sequence[Place]) -> str:
    counts = Counter(place.module or place.tensor for place in places)
    texts = [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
    more = len(texts) - _NAMED
    return "in " + ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _number(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"
