"""Samples: what the sensors of a board said while queries ran, and the record of a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

_NS: Final = 1e9


class Phase(StrEnum):
    """Parts of a run, as the board names them."""

    COLD = "cold"
    WARM_UP = "warm-up"
    WINDOW = "window"
    HEAT = "heat"
    SUSTAINED = "sustained"


@dataclass(frozen=True, kw_only=True)
class Span:
    """One phase: its queries, and its begin and end in seconds from the first window's begin."""

    phase: Phase
    latencies: np.ndarray
    begin_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at the sensors. What a board does not say is empty or None.

    Attributes:
        at_s: From the begin of the first window, by the clock of the queries.
        wall_s: By the clock of the day.
        governor: By CPU or policy.
        khz: Current frequency, the same.
        temperature_c: By thermal zone.
        throttled: Flags of a Raspberry Pi.
        cooling: Steps by which CPUs are slowed down for heat.
        throttle_count: How often x86 cores were, since boot.
        busy_s: CPU seconds of all CPUs since boot.
        steal_s: What a hypervisor took of them.
        own_s: What the run itself took.
    """

    at_s: float
    wall_s: float
    governor: Mapping[str, str]
    khz: Mapping[str, int]
    temperature_c: Mapping[str, float]
    throttled: int | None = None
    cooling: int = 0
    throttle_count: int = 0
    busy_s: float | None = None
    steal_s: float | None = None
    own_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that a run left.

    Attributes:
        spans: In order.
        samples: Taken from the last look before the first window on.
        is_stable: What warm-up found; None where it was not asked to.
        load_ms: Loading the model.
        cores: CPUs that are online.
        is_pinned: Whether no governor may change a frequency, whatever it is called.
        limits_c: By thermal zone, from where on a board slows down.
        machine: What the device tree calls it.
    """

    spans: tuple[Span, ...]
    samples: tuple[Sample, ...]
    is_stable: bool | None
    load_ms: float
    cores: int
    is_pinned: bool
    limits_c: Mapping[str, float]
    machine: str = ""

    def of(self, phase: Phase) -> tuple[Span, ...]:
        """The spans of one phase."""
        return tuple(span for span in self.spans if span.phase is phase)

    def latencies(self, phase: Phase) -> np.ndarray:
        """All queries of one phase, in ns and in order: int64[n]."""
        found = [span.latencies for span in self.of(phase)]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def read_record(
    board: Mapping[str, Any], result: Mapping[str, Any], samples: Iterable[Any], latencies: bytes
) -> Record:
    """A record of the board's lines and its file of little-endian int64 latencies.

    Raises:
        KeyError, TypeError, ValueError: The board wrote something else.
    """
    values = np.frombuffer(latencies, "<i8").astype(np.int64)
    phases = result["phases"]
    if sum(phase["count"] for phase in phases) != values.size:
        message = f"{values.size} latencies for {result['phases']}"
        raise ValueError(message)
    origin = next(phase["begin_ns"] for phase in phases if phase["name"] == Phase.WINDOW)
    spans, position = [], 0
    for phase in phases:
        spans.append(
            Span(
                phase=Phase(phase["name"]),
                latencies=values[position : position + phase["count"]],
                begin_s=(phase["begin_ns"] - origin) / _NS,
                end_s=(phase["end_ns"] - origin) / _NS,
            )
        )
        position += phase["count"]
    taken = [_read_sample(sample, origin) for sample in samples]
    before = [sample for sample in taken if sample.at_s < 0.0]
    return Record(
        spans=tuple(spans),
        samples=(*before[-1:], *(sample for sample in taken if sample.at_s >= 0.0)),
        is_stable=result["is_stable"],
        load_ms=result["load_ns"] / 1e6,
        cores=board["cores"],
        is_pinned=board["is_pinned"],
        limits_c=_degrees(board["limit_milli_c"]),
        machine=board["machine"],
    )


def _read_sample(value: Mapping[str, Any], origin: int) -> Sample:
    return Sample(
        at_s=(value["at_ns"] - origin) / _NS,
        wall_s=value["wall_s"],
        governor=value["governor"],
        khz=value["khz"],
        temperature_c=_degrees(value["milli_c"]),
        throttled=value["throttled"],
        cooling=value["cooling"],
        throttle_count=value["throttle_count"],
        busy_s=value.get("busy_s"),
        steal_s=value.get("steal_s"),
        own_s=value.get("own_s"),
    )


def _degrees(milli_c: Mapping[str, int]) -> dict[str, float]:
    return {zone: value / 1000.0 for zone, value in milli_c.items()}
