"""What the sensors of a board may say against latencies that were measured meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from edgeship.device_tests.bench.plan import Plan
from edgeship.device_tests.bench.samples import Record, Sample

THROTTLED_NOW: Final = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "at the soft temperature limit",
}
"""Raspberry Pi documentation, "vcgencmd", get_throttled; the same 16 bits higher: since boot."""
_SINCE_BOOT: Final = 16
FREQUENCY_CHANGE: Final = 0.03
"""Of the fastest CPU: less than one step of a Raspberry Pi 5, 100 of 2400 MHz
(linux, drivers/cpufreq/raspberrypi-cpufreq.c: RASPBERRYPI_FREQ_INTERVAL)."""
CLOCK_STEP_S: Final = 0.128
"""RFC 5905, appendix A, STEPT: NTP sets a clock that is off by more and slews one that is off by
less. A machine that slept shows itself here too."""
STRETCH_S: Final = 5.0
"""Load is looked at over so long: CPU times come in steps of 10 ms, 0.2 % of it. A choice."""
OTHER_LOAD: Final = 0.2
"""CPUs that others may keep busy over a stretch: a choice."""
STOLEN: Final = 0.02
"""CPUs that a hypervisor may take over a stretch: a choice."""
WATCHED_S: Final = 5.0
"""Longest time without a look at the sensors; a choice, five looks at once in a second."""


def throttled(record: Record, _: Plan) -> str | None:
    """When and why the board first slowed itself down, at or before each look."""
    first = record.samples[0] if record.samples else None
    for sample in record.samples:
        why = _slowed(sample, first)
        if why:
            return f"{why} at {max(0.0, sample.at_s):.0f} s"
    return None


def hot(record: Record, _: Plan) -> str | None:
    """The first zone that reached its limit."""
    for sample in record.samples:
        for zone, degrees in sample.temperature_c.items():
            limit = record.limits_c.get(zone)
            if limit is not None and degrees >= limit:
                at = f"at {max(0.0, sample.at_s):.0f} s"
                return f"{zone} at {degrees:.0f} of {limit:.0f} degrees Celsius {at}"
    return None


def governor(record: Record, _: Plan) -> str | None:
    """Any governor that lets the clock follow the load, or keeps it low."""
    names = sorted({name for sample in record.samples for name in sample.governor.values()})
    if names in ([], ["performance"]) or record.is_pinned:
        return None
    return f"{', '.join(names)}; set it to performance"


def frequency_changed(record: Record, _: Plan) -> str | None:
    """The fastest CPU's frequency: of idle ones it may fall without harm."""
    fastest = [max(sample.khz.values()) for sample in record.samples if sample.khz]
    if not fastest or max(fastest) - min(fastest) <= FREQUENCY_CHANGE * max(fastest):
        return None
    return f"{min(fastest) / 1000:.0f} to {max(fastest) / 1000:.0f} MHz"


def unwatched(record: Record, plan: Plan) -> str | None:
    """Nothing is known of the clocks, or not all of the time."""
    if not any(sample.governor for sample in record.samples) and not record.is_pinned:
        return "the system does not say what the CPUs' clocks do"
    ends = [span.end_s for span in record.spans]
    looks = [sample.at_s for sample in record.samples]
    limit = max(WATCHED_S, WATCHED_S * plan.sampling_s)
    for before, after in pairwise(sorted([*looks, max(ends, default=0.0)])):
        if after - before > limit:
            return f"no look at the sensors from {max(0.0, before):.0f} to {after:.0f} s"
    return None


def other_load(record: Record, _: Plan) -> str | None:
    """What others took of the CPUs in the worst stretch."""
    worst = max(_spent(record, _others), default=(0.0, 0.0))
    if worst[0] <= OTHER_LOAD:
        return None
    return f"others kept {worst[0]:.2g} of {record.cores} CPUs busy until {worst[1]:.0f} s"


def stolen(record: Record, _: Plan) -> str | None:
    """What a hypervisor took of the CPUs in the worst stretch."""
    worst = max(_spent(record, lambda sample: sample.steal_s), default=(0.0, 0.0))
    if worst[0] <= STOLEN:
        return None
    return f"a hypervisor took {worst[0]:.2g} of {record.cores} CPUs until {worst[1]:.0f} s"


def clock_jumped(record: Record, _: Plan) -> str | None:
    """The clock of the day against the one of the queries, and queries that took no time."""
    for one, other in pairwise(record.samples):
        step = (other.wall_s - one.wall_s) - (other.at_s - one.at_s)
        if abs(step) > CLOCK_STEP_S:
            return f"by {step:+.1f} s at {max(0.0, other.at_s):.0f} s"
    if any(span.latencies.size and span.latencies.min() <= 0 for span in record.spans):
        return "a query took no time"
    return None


def _slowed(sample: Sample, first: Sample | None) -> str | None:
    if first is None:
        return None
    flags = sample.throttled or 0
    since = (flags & ~(first.throttled or 0)) >> _SINCE_BOOT
    for bit, why in THROTTLED_NOW.items():
        if (flags | since) >> bit & 1:
            return why
    if sample.cooling or sample.throttle_count > first.throttle_count:
        return "throttled"
    return None


def _spent(
    record: Record, seconds: Callable[[Sample], float | None]
) -> Iterator[tuple[float, float]]:
    """CPUs' worth of what `seconds` counts, and its end, over each stretch of 5 s or the whole."""
    known = [
        (sample.at_s, value) for sample in record.samples if (value := seconds(sample)) is not None
    ]
    start = 0
    for end, (at, value) in enumerate(known):
        before, spent = known[start]
        is_last = end == len(known) - 1
        if at > before and (at - before >= STRETCH_S or (is_last and start == 0)):
            yield (value - spent) / (at - before), at
            start = end


def _others(sample: Sample) -> float | None:
    if sample.busy_s is None or sample.own_s is None:
        return None
    return sample.busy_s - sample.own_s
