"""Summary: a record of one run as the latency, or the work, that stands in evidence."""

from __future__ import annotations

import statistics

from edgeship.device_tests.bench.plan import Plan
from edgeship.device_tests.bench.samples import Phase, Record
from edgeship.device_tests.bench.statistics import percentile_interval_ns, percentile_ns
from edgeship.device_tests.bench.validity import invalid_reasons
from edgeship.latency import Latency, Work
from edgeship.vocabulary import Place

_MS = 1e6


def latency_of(record: Record, plan: Plan, *, threads: int) -> Latency:
    """Percentiles over all windows, and whether they may be believed.

    Args:
        record: Of a board that is none of QEMU's: time there is no latency.
        plan: That was followed.
        threads: Of the runtime.
    """
    queries = record.latencies(Phase.WINDOW)
    p50, p90, p95, p99 = (percentile_ns(queries, percent) / _MS for percent in (50, 90, 95, 99))
    interval = percentile_interval_ns(queries, 95)
    sustained = record.latencies(Phase.SUSTAINED)
    reasons = invalid_reasons(record, plan, Place.DEVICE)
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p95_ci95_ms=None if interval is None else (interval[0] / _MS, interval[1] / _MS),
        cold_ms=int(record.latencies(Phase.COLD)[0]) / _MS,
        load_ms=record.load_ms,
        sustained_p95_ms=percentile_ns(sustained, 95) / _MS if sustained.size else None,
        queries=int(queries.size),
        duration_s=sum(span.end_s - span.begin_s for span in record.of(Phase.WINDOW)),
        warm_up_queries=_warm_up_queries(record),
        threads=threads,
        governor=tuple(
            sorted({name for sample in record.samples for name in sample.governor.values()})
        ),
        frequency_khz=_frequency_khz(record),
        temperature_c=_temperature_c(record),
        is_valid=not reasons,
        reasons=tuple(str(reason) for reason in reasons),
    )


def work_of(record: Record, *, cpu: str) -> Work:
    """Instructions of each query, on a board where one instruction takes one nanosecond.

    Args:
        record: Of a board that QEMU ran with `-icount shift=0`.
        cpu: Its `-cpu`.
    """
    counts = record.latencies(Phase.WINDOW)
    return Work(
        instructions=statistics.median_low(int(count) for count in counts),
        spread=(int(counts.min()), int(counts.max())),
        inferences=int(counts.size),
        cpu=cpu,
    )


def _warm_up_queries(record: Record) -> int:
    before = (*record.of(Phase.COLD), *record.of(Phase.WARM_UP))
    return sum(span.latencies.size for span in before)


def _frequency_khz(record: Record) -> tuple[int, int] | None:
    seen = [khz for sample in record.samples for khz in sample.khz.values()]
    return (min(seen), max(seen)) if seen else None


def _temperature_c(record: Record) -> tuple[float, float] | None:
    hottest = [max(it.temperature_c.values()) for it in record.samples if it.temperature_c]
    return (min(hottest), max(hottest)) if hottest else None
