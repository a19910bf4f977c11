"""Records of runs on a quiet board, to be changed in one place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from edgeship.device_tests.bench.samples import Phase, Record, Sample, Span

MS: Final = 1_000_000
CORES: Final = 4
ZONE: Final = "thermal_zone0 cpu-thermal"


def latencies(count: int, *, seed: int = 0) -> np.ndarray:
    """About 20 ms each."""
    return np.random.default_rng(seed).normal(20 * MS, 0.2 * MS, count).astype(np.int64)


def quiet_sample(at_s: float) -> Sample:
    """One core is busy, and all of it is ours."""
    return Sample(
        at_s=at_s,
        wall_s=1.8e9 + at_s,
        governor={"cpu0": "performance", "cpu1": "performance"},
        khz={"cpu0": 1500000, "cpu1": 1500000},
        temperature_c={ZONE: 55.0 + at_s / 20},
        throttled=0x50000,  # has happened since boot, not in this run
        busy_s=1000.0 + at_s * 1.02,
        steal_s=0.0,
        own_s=50.0 + at_s,
    )


def quiet_record(*, windows: int = 1, window_s: float = 62.0, queries: int = 3100) -> Record:
    spans = [
        Span(phase=Phase.COLD, latencies=np.array([90 * MS]), begin_s=-3.0, end_s=-2.9),
        Span(phase=Phase.WARM_UP, latencies=latencies(40), begin_s=-2.9, end_s=-0.001),
    ]
    for index in range(windows):
        begin = index * window_s
        spans.append(
            Span(
                phase=Phase.WINDOW,
                latencies=latencies(queries, seed=index),
                begin_s=begin,
                end_s=begin + window_s,
            )
        )
    over = windows * window_s
    return Record(
        spans=tuple(spans),
        samples=tuple(quiet_sample(float(at)) for at in range(int(over) + 1)),
        is_stable=True,
        load_ms=12.0,
        cores=CORES,
        is_pinned=False,
        limits_c={ZONE: 80.0},
        machine="raspberrypi,4-model-b brcm,bcm2711",
    )


def changed_samples(record: Record, change: Callable[[Sample], Sample]) -> Record:
    return replace(record, samples=tuple(change(sample) for sample in record.samples))


def with_latencies(record: Record, values: np.ndarray) -> Record:
    """Of its first window."""
    spans = [
        replace(span, latencies=values) if span.phase is Phase.WINDOW else span
        for span in record.spans
    ]
    return replace(record, spans=tuple(spans))
