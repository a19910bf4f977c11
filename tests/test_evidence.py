from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.evidence import Evidence, best_evidence, describe_host, utc_now
from edgeship.latency import MemoryUse, Work
from edgeship.measurements import Failure, Rates
from edgeship.vocabulary import Metric, Place, Rung

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
    lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
)
RATES = st.builds(
    Rates,
    prompt_tokens_per_s=NUMBERS,
    generated_tokens_per_s=NUMBERS,
    prompt_tokens=st.integers(1, 10**6),
    generated_tokens=st.integers(1, 10**6),
    threads=st.integers(1, 64),
    rounds=st.integers(1, 100),
    spread=st.tuples(NUMBERS, NUMBERS),
)
MEMORY = st.builds(MemoryUse, peak_bytes=st.integers(0), imported_bytes=st.integers(0))
WORK = st.builds(
    Work,
    instructions=st.integers(1),
    spread=st.tuples(st.integers(1), st.integers(1)),
    inferences=st.integers(1),
    cpu=st.text(),
)
EVIDENCE = st.builds(
    Evidence,
    rung=st.sampled_from(Rung),
    place=st.sampled_from(Place),
    stand_in=st.booleans(),
    where=st.dictionaries(st.sampled_from(["cpu", "os", "runtime", "version"]), st.text()),
    metrics=st.dictionaries(st.sampled_from(Metric), NUMBERS),
    samples=st.integers(0, 10**6),
    ci95=st.none() | st.tuples(NUMBERS, NUMBERS),
    data_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    command=st.text(),
    at=MOMENTS,
    rates=st.none() | RATES,
    memory=st.none() | MEMORY,
    work=st.none() | WORK,
    failure=st.none() | st.builds(Failure, outcome=st.text(), detail=st.text()),
)
HOST = Evidence(
    rung=Rung.MATCHES,
    place=Place.HOST,
    stand_in=False,
    where={"cpu": "some"},
    metrics={Metric.TOP1: 0.8},
    samples=100,
    ci95=None,
    data_sha256="0" * 64,
    command="edgeship build",
    at="2026-01-02T00:00:00Z",
)


@given(EVIDENCE)
@settings(deadline=None)
def test_evidence_survives_json(evidence: Evidence) -> None:
    assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence


def test_evidence_without_rates_says_nothing_of_them() -> None:
    assert "rates" not in HOST.to_json()
    assert Evidence.from_json(HOST.to_json()).rates is None


def test_best_evidence_of_nothing_is_none() -> None:
    assert best_evidence(()) is None


def test_evidence_without_metrics_is_no_measure_of_accuracy() -> None:
    assert best_evidence((replace(HOST, rung=Rung.TIMED, metrics={}),)) is None


def test_a_device_is_better_than_an_emulation_and_that_than_the_host() -> None:
    emulated, device = replace(HOST, place=Place.EMULATED), replace(HOST, place=Place.DEVICE)
    later = replace(HOST, at="2027-01-01T00:00:00Z")
    assert best_evidence((later, device, emulated)) is device
    assert best_evidence((later, emulated, HOST)) is emulated


def test_a_stand_in_counts_only_where_there_is_no_other() -> None:
    stand_in = replace(HOST, place=Place.DEVICE, stand_in=True, at="2027-01-01T00:00:00Z")
    assert best_evidence((stand_in, HOST)) is HOST
    assert best_evidence((stand_in,)) is stand_in


def test_of_one_place_the_latest_counts() -> None:
    earlier = replace(HOST, at="2026-01-01T23:59:59Z")
    assert best_evidence((HOST, earlier)) is HOST
    assert best_evidence((earlier, HOST)) is HOST


def test_of_one_second_the_one_that_was_appended_last_counts() -> None:
    again = replace(HOST, samples=200)
    assert best_evidence((HOST, again)) is again


@given(st.lists(EVIDENCE, max_size=6))
@settings(deadline=None)
def test_best_evidence_is_measured_and_never_passed_over_by_its_kind(
    items: list[Evidence],
) -> None:
    best, measured = best_evidence(tuple(items)), [item for item in items if item.metrics]
    if best is None:
        assert not measured
        return
    own = [item for item in measured if not item.stand_in] or measured
    assert best in own
    places = {item.place for item in own}
    assert best.place == next(
        place for place in (Place.DEVICE, Place.EMULATED, Place.HOST) if place in places
    )
    assert best.at == max(item.at for item in own if item.place is best.place)


def test_rungs_rise_in_the_order_of_the_design() -> None:
    ladder = ["declared", "exported", "loads", "runs", "matches", "timed"]
    assert [Rung(name).height for name in ladder] == [0, 1, 2, 3, 4, 5]
    assert len(Rung) == 6


def test_now_is_rfc_3339_in_utc_to_the_second() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    now = utc_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now)
    assert before <= datetime.fromisoformat(now) <= datetime.now(UTC)


def test_host_has_a_cpu_and_a_system() -> None:
    host = describe_host()
    assert set(host) == {"cpu", "os"}
    assert all(host.values())
