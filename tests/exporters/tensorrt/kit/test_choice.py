from typing import Any

import numpy as np
import pytest

from edgeship.exporters.tensorrt.kit.choice import choose_engine, kept_choice
from edgeship.exporters.tensorrt.kit.percentiles import is_stable, percentiles_ms

BOTH = ["fp16", "int8"]


@pytest.mark.parametrize(
    ("fp16", "int8", "expected"),
    [
        ([2.0, 2.1], [1.0, 1.1], "int8"),
        ([2.0, 2.1], [2.0, 1.9], "fp16"),  # not in every round
        ([2.0, 1.0], [1.5, 0.8], "fp16"),  # the board grew faster: nothing was shown
        ([1.0], [1.0], "fp16"),
        ([1.0], [3.0], "fp16"),
    ],
)
def test_int8_has_to_be_faster_in_every_round(
    fp16: list[float], int8: list[float], expected: str
) -> None:
    assert choose_engine({"fp16": fp16, "int8": int8}, BOTH).graph == expected


def test_without_two_measurements_the_more_accurate_one_is_chosen() -> None:
    assert choose_engine({}, BOTH).graph == "fp16"
    assert choose_engine({"int8": [1.0]}, BOTH).graph == "fp16"


def test_one_that_did_not_pass_is_never_chosen() -> None:
    assert choose_engine({"int8": [1.0]}, ["int8"]).graph == "int8"
    assert choose_engine({"fp16": [9.0], "int8": [1.0]}, ["fp16"]).graph == "fp16"
    assert choose_engine({}, []).graph is None


def test_percentiles_are_values_that_were_observed() -> None:
    values = np.random.default_rng(1).lognormal(size=1001).tolist()
    found = percentiles_ms(values)
    expected = np.percentile(values, [50, 90, 95, 99], method="higher")
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert percentiles_ms([3.0]) == {"p50_ms": 3.0, "p90_ms": 3.0, "p95_ms": 3.0, "p99_ms": 3.0}


def test_stability_is_a_coefficient_of_variation_of_one_percent() -> None:
    assert is_stable([1.0, 1.005, 0.995]) is True
    assert is_stable([1.0, 1.05, 0.95]) is False
    assert is_stable([1.0]) is None


def last_report(**changes: object) -> dict[str, Any]:
    rows = [{"name": name, "outcome": "ok", "engine": {"sha256": name[0] * 64}} for name in BOTH]
    report = {"recommended": "int8", "reason": "INT8 was faster", "graphs": rows}
    return {**report, "settings": {"duration_s": 10}, **changes}


def test_the_choice_of_the_last_report_is_kept_while_its_engines_are_the_same() -> None:
    digests = {name: name[0] * 64 for name in BOTH}
    assert kept_choice(last_report(), digests, with_times=True) == ("int8", "INT8 was faster")
    others = {**digests, "fp16": "0" * 64}
    unmeasured = last_report(settings={"outcome": "out-of-memory"})
    for last, found in [({}, digests), (last_report(), others), (unmeasured, digests)]:
        assert kept_choice(last, found, with_times=True).graph is None
    assert kept_choice(last_report(), {"fp16": "f" * 64}, with_times=True).graph is None
    assert kept_choice(unmeasured, digests, with_times=False).graph == "int8"


def test_times_that_are_no_latency_decide_and_are_not_told() -> None:
    medians = {"fp16": [2.0, 2.1], "int8": [1.0, 1.1]}
    assert "1.100 ms" in choose_engine(medians, BOTH).reason
    choice = choose_engine(medians, BOTH, is_device=False)
    assert choice.graph == "int8"
    assert " ms" not in choice.reason
