from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeship.device_tests.bench.plan import COUNTING, PLANS, Plan
from edgeship.device_tests.board import bench_plan
from edgeship.device_tests.board.bench_stream import Stream, perf_ns

MS = 1_000_000


class Board:
    """Time passes only while a query runs: `taken_ms` of the number of the query and the time."""

    def __init__(self, taken_ms: Callable[[int, float], float]) -> None:
        self.now = 5_000 * MS
        self.cases: list[str] = []
        self._taken_ms = taken_ms
        self.stream = Stream(self._run, ["a", "b"], lambda: self.now)
        self.heard: list[str] = []

    def _run(self, case: str) -> None:
        seconds = (self.now - 5_000 * MS) / 1e9
        self.now += int(self._taken_ms(len(self.cases), seconds) * MS)
        self.cases.append(case)

    def run(self, plan: Plan) -> dict[str, list[int]]:
        """Queries by phase, and the length of each phase in ms."""
        self.stream.run_plan(bench_plan.read_plan(plan.to_json()), self.heard.append)
        return {
            phase["name"]: [phase["count"], (phase["end_ns"] - phase["begin_ns"]) // MS]
            for phase in self.stream.phases
        }


def test_a_quick_model_runs_for_the_whole_time() -> None:
    found = Board(lambda *_: 1.0).run(PLANS["single-stream"])
    # three looks of 200 ms after 9 more queries; then 60 s, 60 s of heat, 30 s
    assert found == {
        "cold": [1, 1],
        "warm-up": [609, 609],
        "window": [60_000, 60_000],
        "heat": [60_000, 60_000],
        "sustained": [30_000, 30_000],
    }


def test_a_slow_model_runs_all_its_queries() -> None:
    found = Board(lambda *_: 100.0).run(PLANS["single-stream"])
    assert found["window"] == [1024, 102_400]


def test_a_window_ends_at_its_limit_with_fewer_queries() -> None:
    found = Board(lambda *_: 7_000.0).run(PLANS["single-stream"])
    assert found["window"] == [86, 602_000]


def test_tiny_has_five_windows_and_no_heat() -> None:
    board = Board(lambda *_: 4.0)
    board.run(PLANS["tiny"])
    assert board.heard == ["cold", "warm-up", *["window"] * 5]
    assert [it["count"] for it in board.stream.phases[2:]] == [2500] * 5


def test_counting_is_three_and_eleven_queries() -> None:
    board = Board(lambda *_: 1.0)
    found = board.run(COUNTING)
    assert found == {"cold": [1, 1], "warm-up": [2, 2], "window": [11, 11]}
    assert board.stream.is_stable is None


def test_warm_up_lasts_until_latencies_agree() -> None:
    board = Board(lambda _, seconds: 20.0 if seconds > 3 else 40.0 - 6 * seconds)
    found = board.run(PLANS["single-stream"])
    assert board.stream.is_stable is True
    assert 3_000 <= found["warm-up"][1] <= 4_000


def test_warm_up_gives_up_at_its_limit() -> None:
    board = Board(lambda number, _: 10.0 * 1.001**number)
    found = board.run(PLANS["single-stream"])
    assert board.stream.is_stable is False
    assert found["warm-up"][1] >= 30_000


def test_one_outlier_does_not_keep_warm_up_going() -> None:
    board = Board(lambda number, _: 500.0 if number % 50 == 0 else 10.0)
    board.run(PLANS["single-stream"])
    assert board.stream.is_stable is True


def test_every_latency_is_kept_in_order(tmp_path: Path) -> None:
    board = Board(lambda number, _: float(number + 1))
    board.run(COUNTING)
    board.stream.write(str(tmp_path / "latencies.bin"))
    values = np.fromfile(tmp_path / "latencies.bin", "<i8")
    assert values.tolist() == [(number + 1) * MS for number in range(14)]
    assert board.cases[3:7] == ["a", "b", "a", "b"]


def test_the_clock_of_python_3_6_counts_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = perf_ns()
    monkeypatch.delattr("time.perf_counter_ns")
    coarse = perf_ns()
    before, between, after = exact(), coarse(), exact()
    assert before - 1000 <= between <= after + 1000


def test_both_sides_know_the_same_plan(tmp_path: Path) -> None:
    text = PLANS["tiny"].to_json()
    (tmp_path / "plan.json").write_text(text)
    for plan in (bench_plan.read_plan(text), bench_plan.read_plan(str(tmp_path / "plan.json"))):
        assert vars(plan) == vars(PLANS["tiny"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_queries": 0}, "min_queries is 0"),
        ({"heat_s": -1}, "heat_s is -1"),
        ({"windows": True}, "windows is True"),
        ({"sampling_s": "1"}, "sampling_s is '1'"),
        ({"pause_s": 1}, "a plan has the keys"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, object], message: str) -> None:
    value = json.loads(PLANS["tiny"].to_json()) | change
    with pytest.raises(ValueError, match=message):
        bench_plan.read_plan(json.dumps(value))


def test_a_plan_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("[1]")
    with pytest.raises(ValueError, match="object"):
        bench_plan.read_plan(str(tmp_path / "plan.json"))
