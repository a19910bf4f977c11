"""Validity: whether latencies may be believed, and every reason why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.device_tests.bench import machine_rules
from edgeship.device_tests.bench.plan import (
    SINGLE_STREAM_QUERIES,
    SINGLE_STREAM_S,
    TINY_QUERIES,
    TINY_WINDOW_S,
    TINY_WINDOWS,
    Plan,
)
from edgeship.device_tests.bench.samples import Phase, Record, Span
from edgeship.device_tests.bench.statistics import drift, two_modes
from edgeship.vocabulary import Place

DRIFT: Final = 0.05
"""Of medians, first half against second one, or between windows: a choice: a budget is
seldom set closer."""
MODE_SHARE: Final = 0.05
"""A group of a twentieth of the queries decides alone where p95 is."""
MODE_GAP: Final = 1.10
"""Between the medians of both groups: a choice, twice the drift that is let pass."""
MODE_VALLEY: Final = 0.5
"""Of the smaller group's height: a bimodal amplitude of one half (Zhang, Mapes and Soden 2003). Of
one group it is about 1 or more (see `two_modes`)."""
QEMU_MACHINE: Final = "linux,dummy-virt"
"""What the device tree of QEMU's board `virt` calls itself (qemu, hw/arm/virt.c)."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why latencies are not to be believed: a rule of `RULES`, and what was seen."""

    rule: str
    seen: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.seen}"


def invalid_reasons(record: Record, plan: Plan, place: Place) -> tuple[Reason, ...]:
    """Every reason, in the order of `RULES`; none where the latencies are valid."""
    emulated = emulated_reason(record, place)
    found = [] if emulated is None else [emulated]
    for rule, check in RULES.items():
        seen = check(record, plan)
        if seen is not None:
            found.append(Reason(rule=rule, seen=seen))
    return tuple(found)


def emulated_reason(record: Record, place: Place) -> Reason | None:
    """Why there is no latency at all: the board is none, whatever it is called."""
    if place is Place.EMULATED or QEMU_MACHINE in record.machine:
        seen = "time on an emulated board says nothing of a real one"
        return Reason(rule="emulated", seen=seen)
    return None


def _too_few(record: Record, plan: Plan) -> str | None:
    """The plan's own number, and that of the MLPerf rules that it follows."""
    windows = record.of(Phase.WINDOW)
    is_tiny = plan.windows >= TINY_WINDOWS
    least = max(plan.min_queries, TINY_QUERIES if is_tiny else SINGLE_STREAM_QUERIES)
    counts = [span.latencies.size for span in windows]
    fewest = min(counts, default=0) if is_tiny else sum(counts)
    if fewest >= least:
        return None
    return f"{fewest} of {least} queries{' in a window' if is_tiny else ''}"


def _too_short(record: Record, plan: Plan) -> str | None:
    windows = record.of(Phase.WINDOW)
    is_tiny = plan.windows >= TINY_WINDOWS
    least = max(plan.min_duration_s, TINY_WINDOW_S if is_tiny else SINGLE_STREAM_S)
    lengths = [span.end_s - span.begin_s for span in windows]
    shortest = min(lengths, default=0.0) if is_tiny else sum(lengths)
    if shortest >= least:
        return None
    return f"{shortest:.1f} of {least:.0f} s{' in a window' if is_tiny else ''}"


def _unstable(record: Record, plan: Plan) -> str | None:
    if record.is_stable:
        return None
    if record.is_stable is None:
        return "warm-up did not wait until latencies agreed"
    return f"latencies did not agree within {plan.warm_up_limit_s:.0f} s of warm-up"


def _bimodal(record: Record, _: Plan) -> str | None:
    modes = two_modes(record.latencies(Phase.WINDOW))
    if modes is None or modes.share < MODE_SHARE or modes.valley > MODE_VALLEY:
        return None
    if modes.high_ns < MODE_GAP * modes.low_ns:
        return None
    smaller = f"{modes.share:.0%} of the queries in the smaller group"
    return f"two groups, at {modes.low_ns / 1e6:.3g} and {modes.high_ns / 1e6:.3g} ms, {smaller}"


def _drifted(record: Record, _: Plan) -> str | None:
    change = drift(record.latencies(Phase.WINDOW))
    if abs(change) > DRIFT:
        return f"the second half took {change:+.0%}"
    medians = [float(np.median(span.latencies)) for span in _filled(record)]
    if len(medians) > 1 and max(medians) > min(medians) * (1 + DRIFT):
        return f"windows took {min(medians) / 1e6:.3g} to {max(medians) / 1e6:.3g} ms"
    return None


def _filled(record: Record) -> Iterator[Span]:
    return (span for span in record.of(Phase.WINDOW) if span.latencies.size)


RULES: Final[Mapping[str, Callable[[Record, Plan], str | None]]] = {
    "too few queries": _too_few,
    "too short": _too_short,
    "not warm": _unstable,
    "throttled": machine_rules.throttled,
    "hot": machine_rules.hot,
    "governor": machine_rules.governor,
    "frequency changed": machine_rules.frequency_changed,
    "unwatched": machine_rules.unwatched,
    "other load": machine_rules.other_load,
    "stolen": machine_rules.stolen,
    "clock jumped": machine_rules.clock_jumped,
    "bimodal": _bimodal,
    "drifted": _drifted,
}
"""Rule to what it sees in a record: None where it finds nothing."""
