from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.device_tests.bench.plan import PLANS
from edgeship.device_tests.bench.samples import Record, Sample
from edgeship.device_tests.bench.validity import RULES, invalid_reasons
from edgeship.vocabulary import Place

records = SimpleNamespace(**run_path(str(Path(__file__).parent / "records.py")))
changed_samples, latencies = records.changed_samples, records.latencies
quiet_record, with_latencies = records.quiet_record, records.with_latencies
MS, ZONE = records.MS, records.ZONE
SINGLE = PLANS["single-stream"]
TINY = PLANS["tiny"]


def reasons(record: Record, place: Place = Place.DEVICE) -> list[str]:
    return [str(reason) for reason in invalid_reasons(record, SINGLE, place)]


def from_then_on(at_s: float, **values: object) -> Callable[[Sample], Sample]:
    return lambda it: replace(it, **values) if it.at_s >= at_s else it  # type: ignore[arg-type]


def test_a_quiet_board_is_valid() -> None:
    assert reasons(quiet_record()) == []


def test_five_windows_of_ten_seconds_are_valid_by_the_rules_of_tiny() -> None:
    record = quiet_record(windows=5, window_s=10.5, queries=500)
    assert invalid_reasons(record, TINY, Place.DEVICE) == ()
    assert [item.rule for item in invalid_reasons(record, SINGLE, Place.DEVICE)] == ["too short"]


def drifting(record: Record) -> Record:
    values = latencies(3100)
    values[1550:] += values[1550:] // 10
    changed: Record = with_latencies(record, values)
    return changed


def bimodal(record: Record) -> Record:
    values = latencies(3100)
    values[::4] *= 2
    changed: Record = with_latencies(record, values)
    return changed


PLANTED: dict[str, tuple[Callable[[Record], Record], str]] = {
    "too few queries": (
        lambda it: with_latencies(it, latencies(1000)),
        "too few queries: 1000 of 1024 queries",
    ),
    "too short": (
        lambda it: replace(it, spans=(*it.spans[:-1], replace(it.spans[-1], end_s=59.5))),
        "too short: 59.5 of 60 s",
    ),
    "not warm": (
        lambda it: replace(it, is_stable=False),
        "not warm: latencies did not agree within 30 s of warm-up",
    ),
    "throttled": (
        lambda it: changed_samples(it, from_then_on(61.0, throttled=0x50004)),
        "throttled: throttled at 61 s",
    ),
    "hot": (
        lambda it: changed_samples(it, from_then_on(40.0, temperature_c={ZONE: 80.2})),
        "hot: thermal_zone0 cpu-thermal at 80 of 80 degrees Celsius at 40 s",
    ),
    "governor": (
        lambda it: changed_samples(it, lambda s: replace(s, governor={"cpu0": "ondemand"})),
        "governor: ondemand; set it to performance",
    ),
    "frequency changed": (
        lambda it: changed_samples(it, from_then_on(30.0, khz={"cpu0": 1400000, "cpu1": 600000})),
        "frequency changed: 1400 to 1500 MHz",
    ),
    "unwatched": (
        lambda it: changed_samples(it, lambda s: replace(s, governor={}, khz={})),
        "unwatched: the system does not say what the CPUs' clocks do",
    ),
    "other load": (
        lambda it: changed_samples(
            it, lambda s: replace(s, busy_s=(s.busy_s or 0) + 0.5 * min(10.0, s.at_s))
        ),
        "other load: others kept 0.52 of 4 CPUs busy until 10 s",
    ),
    "stolen": (
        lambda it: changed_samples(it, lambda s: replace(s, steal_s=0.1 * s.at_s)),
        "stolen: a hypervisor took 0.1 of 4 CPUs until 60 s",
    ),
    "clock jumped": (
        lambda it: changed_samples(
            it, lambda s: replace(s, wall_s=s.wall_s - 3.0) if s.at_s >= 20 else s
        ),
        "clock jumped: by -3.0 s at 20 s",
    ),
    "bimodal": (
        bimodal,
        "bimodal: two groups, at 20 and 40 ms, 25% of the queries in the smaller group",
    ),
    "drifted": (drifting, "drifted: the second half took +10%"),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_fault_is_the_one_reason_that_it_gives(rule: str) -> None:
    plant, seen = PLANTED[rule]
    assert reasons(plant(quiet_record())) == [seen]


def test_time_on_an_emulated_board_is_no_latency() -> None:
    expected = ["emulated: time on an emulated board says nothing of a real one"]
    assert reasons(quiet_record(), Place.EMULATED) == expected


def test_a_board_that_qemu_made_is_emulated_whatever_it_is_called() -> None:
    record = replace(quiet_record(), machine="linux,dummy-virt")
    assert [item.rule for item in invalid_reasons(record, SINGLE, Place.DEVICE)] == ["emulated"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"throttled": 0x50001}, "under-voltage"),
        ({"throttled": 0x50002}, "frequency capped"),
        ({"throttled": 0x50008}, "at the soft temperature limit"),
        ({"throttled": 0xD0000}, "at the soft temperature limit"),  # between two looks
        ({"cooling": 2}, "throttled"),
        ({"throttle_count": 1}, "throttled"),
    ],
)
def test_every_sign_of_throttling_counts(change: dict[str, int], why: str) -> None:
    record = changed_samples(quiet_record(), from_then_on(12.0, **change))
    assert reasons(record) == [f"throttled: {why} at 12 s"]


def test_throttling_before_the_run_is_no_reason() -> None:
    record = changed_samples(quiet_record(), lambda it: replace(it, throttled=0xF0000))
    assert reasons(record) == []
    record = changed_samples(quiet_record(), lambda it: replace(it, throttle_count=7))
    assert reasons(record) == []


def test_a_pinned_clock_needs_no_performance_governor() -> None:
    record = changed_samples(quiet_record(), lambda it: replace(it, governor={"cpu0": "schedutil"}))
    assert reasons(replace(record, is_pinned=True)) == []


def test_idle_cpus_may_slow_down() -> None:
    record = changed_samples(
        quiet_record(), from_then_on(9.0, khz={"cpu0": 1500000, "cpu1": 600000})
    )
    assert reasons(record) == []


def test_a_gap_between_looks_is_unwatched() -> None:
    record = quiet_record()
    kept = tuple(it for it in record.samples if not 20 < it.at_s < 40)
    assert reasons(replace(record, samples=kept)) == [
        "unwatched: no look at the sensors from 20 to 40 s"
    ]


def test_sensors_that_stopped_early_are_unwatched() -> None:
    record = quiet_record()
    assert reasons(replace(record, samples=record.samples[:50])) == [
        "unwatched: no look at the sensors from 49 to 62 s"
    ]


def test_a_short_burst_of_others_counts_though_the_mean_is_low() -> None:
    record = changed_samples(
        quiet_record(),
        lambda it: replace(it, busy_s=(it.busy_s or 0) + min(2.0, max(0.0, it.at_s - 30))),
    )
    assert [item.partition(":")[0] for item in reasons(record)] == ["other load"]


def test_ntp_may_slew_the_clock_of_the_day() -> None:
    record = changed_samples(quiet_record(), lambda it: replace(it, wall_s=it.wall_s * (1 + 5e-10)))
    slewed = changed_samples(record, lambda it: replace(it, wall_s=it.wall_s + it.at_s * 500e-6))
    assert reasons(slewed) == []  # 500 ppm, the most that adjtime(3) does


def test_a_query_that_took_no_time_is_a_fault_of_the_clock() -> None:
    values = latencies(3100)
    values[7] = 0
    assert reasons(with_latencies(quiet_record(), values)) == ["clock jumped: a query took no time"]


def test_a_group_of_few_queries_or_close_by_is_no_reason() -> None:
    rare, close = latencies(3100), latencies(3100)
    rare[::50] *= 3
    close[::3] += close[::3] // 20
    assert reasons(with_latencies(quiet_record(), rare)) == []
    assert reasons(with_latencies(quiet_record(), close)) == []


def test_windows_that_disagree_have_drifted() -> None:
    record = quiet_record(windows=5, window_s=10.5, queries=500)
    middle = replace(record.spans[4], latencies=record.spans[4].latencies * 107 // 100)
    record = replace(record, spans=(*record.spans[:4], middle, *record.spans[5:]))
    found = [str(item) for item in invalid_reasons(record, TINY, Place.DEVICE)]
    assert found == ["drifted: windows took 20 to 21.4 ms"]


def test_faults_are_told_together() -> None:
    record = changed_samples(
        quiet_record(), lambda it: replace(it, governor={"cpu0": "ondemand"}, throttled=0x50005)
    )
    values = np.full(10, 20 * MS)
    found = [item.partition(":")[0] for item in reasons(with_latencies(record, values))]
    assert found == ["too few queries", "throttled", "governor"]
