from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.device_tests.bench.plan import PLANS, find_plan
from edgeship.device_tests.bench.samples import Phase, Span, read_record
from edgeship.device_tests.bench.summary import latency_of, work_of
from edgeship.errors import UnknownName

records = SimpleNamespace(**run_path(str(Path(__file__).parent / "records.py")))
MS = records.MS
SINGLE = PLANS["single-stream"]


def test_a_quiet_run_is_summed_up_with_what_the_board_did() -> None:
    record = records.quiet_record()
    hot = Span(phase=Phase.SUSTAINED, latencies=np.arange(100) * MS + MS, begin_s=62.0, end_s=92.0)
    found = latency_of(replace(record, spans=(*record.spans, hot)), SINGLE, threads=2)
    window = record.latencies(Phase.WINDOW)
    assert found.p95_ms == np.percentile(window, 95.01, method="inverted_cdf") / MS
    assert found.p50_ms == np.sort(window)[1550] / MS
    assert found.p95_ci95_ms is not None
    assert found.p95_ci95_ms[0] < found.p95_ms < found.p95_ci95_ms[1]
    assert (found.cold_ms, found.load_ms, found.sustained_p95_ms) == (90.0, 12.0, 96.0)
    assert (found.queries, found.duration_s, found.warm_up_queries) == (3100, 62.0, 41)
    assert (found.threads, found.governor) == (2, ("performance",))
    assert found.frequency_khz == (1500000, 1500000)
    assert found.temperature_c == (55.0, 55.0 + 62 / 20)


def test_a_run_is_valid_or_says_why_not() -> None:
    record = replace(records.quiet_record(), samples=records.quiet_record().samples[:60])
    assert latency_of(record, SINGLE, threads=1).is_valid
    found = latency_of(replace(record, is_stable=False), SINGLE, threads=1)
    assert not found.is_valid
    assert [reason.partition(":")[0] for reason in found.reasons] == ["not warm"]


def test_sensors_that_say_nothing_leave_nothing() -> None:
    record = records.changed_samples(
        records.quiet_record(),
        lambda it: replace(it, governor={}, khz={}, temperature_c={}),
    )
    found = latency_of(record, SINGLE, threads=1)
    assert (found.governor, found.frequency_khz, found.temperature_c) == ((), None, None)


def test_few_queries_have_percentiles_and_no_interval() -> None:
    record = records.with_latencies(records.quiet_record(), np.arange(1, 12) * MS)
    found = latency_of(record, SINGLE, threads=1)
    assert (found.p50_ms, found.p95_ms, found.p95_ci95_ms) == (6.0, 11.0, None)


def test_work_is_the_median_of_what_was_counted() -> None:
    record = records.with_latencies(records.quiet_record(), np.array([105, 101, 160, 100]))
    found = work_of(record, cpu="cortex-a72")
    assert (found.instructions, found.spread, found.inferences) == (101, (100, 160), 4)


def test_an_unknown_plan_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="single-stream"):
        find_plan("singlestream")
    assert find_plan("tiny") is PLANS["tiny"]


SAMPLE = {
    "wall_s": 9.0,
    "governor": {},
    "khz": {},
    "milli_c": {"thermal_zone0": 61500},
    "throttled": None,
    "cooling": 0,
    "throttle_count": 0,
    "load": 0.1,
}
BOARD = {"cores": 4, "is_pinned": False, "limit_milli_c": {"thermal_zone0": 80000}, "machine": ""}


def phase(name: str, count: int, begin_s: float, end_s: float) -> dict[str, object]:
    return {"name": name, "count": count, "begin_ns": int(begin_s * 1e9), "end_ns": end_s * 1e9}


def test_a_record_counts_from_its_first_window() -> None:
    phases = [phase("cold", 1, 100.0, 101.0), phase("window", 2, 101.5, 103.5)]
    result = {"phases": phases, "is_stable": None, "load_ns": 2_500_000}
    samples = [SAMPLE | {"at_ns": int(at * 1e9)} for at in (100.0, 101.4, 102.5, 103.6)]
    values = np.array([7, 8, 9], "<i8").tobytes()
    found = read_record(BOARD, result, samples, values)
    assert [span.latencies.tolist() for span in found.spans] == [[7], [8, 9]]
    assert [(span.begin_s, span.end_s) for span in found.spans] == [(-1.5, -0.5), (0.0, 2.0)]
    assert [sample.at_s for sample in found.samples] == pytest.approx([-0.1, 1.0, 2.1])
    assert found.samples[0].temperature_c == {"thermal_zone0": 61.5}
    assert (found.load_ms, found.limits_c) == (2.5, {"thermal_zone0": 80.0})


def test_latencies_that_are_not_those_of_the_phases_are_refused() -> None:
    result = {"phases": [phase("window", 2, 1.0, 2.0)], "is_stable": None, "load_ns": 1}
    with pytest.raises(ValueError, match="3 latencies"):
        read_record(BOARD, result, [], np.zeros(3, "<i8").tobytes())
