from collections.abc import Callable

import pytest

from edgeship.evaluate.speed import Clock, compare_speed, is_faster, is_slower, speed_line

MS = 1_000_000
WHERE = {"cpu": "AMD EPYC", "os": "Linux x86_64", "runtime": "LiteRT", "version": "2.3.0"}


class Host:
    """A host whose time passes only while a file runs; `taken` is wall and CPU time in ns."""

    def __init__(self) -> None:
        self.wall = 0
        self.cpu = 0
        self.turns: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: self.wall, cpu_ns=lambda: self.cpu)

    def file(self, name: str, taken: Callable[[], tuple[int, int]]) -> Callable[[], None]:
        def run() -> None:
            wall, cpu = taken()
            self.wall += wall
            self.cpu += cpu
            self.turns.append(name)

        return run

    def steady(self, name: str, wall: int) -> Callable[[], None]:
        return self.file(name, lambda: (wall, wall))


def test_steady_times_give_their_quotient() -> None:
    host = Host()
    found = compare_speed(
        host.steady("int8", 3 * MS), host.steady("fp32", 1 * MS), clock=host.clock
    )
    assert (found.ratio, found.spread, found.wall_ratio) == (3.0, (3.0, 3.0), 3.0)
    assert (found.one_ms, found.other_ms) == (3.0, 1.0)
    assert found.is_slower


def test_a_file_against_itself_is_not_slower() -> None:
    host = Host()
    run = host.steady("int8", 2 * MS)
    found = compare_speed(run, run, clock=host.clock)
    assert found.ratio == 1.0
    assert not found.is_slower


def test_a_host_that_slows_down_favours_neither() -> None:
    host = Host()

    def taken() -> tuple[int, int]:  # twice as slow after one second
        return (wall := MS + host.wall // 1000, wall)

    found = compare_speed(host.file("a", taken), host.file("b", taken), clock=host.clock)
    assert host.wall > 0.3e9  # the host became slower by a third at least
    assert found.ratio == pytest.approx(1.0, abs=0.01)
    assert found.spread[0] < 1.0 < found.spread[1]


def test_other_processes_do_not_count() -> None:
    host = Host()

    def disturbed() -> tuple[int, int]:  # the CPU is away in every run after the warm-up
        return (40 * MS if host.turns.count("a") > 10 else MS, MS)

    found = compare_speed(host.file("a", disturbed), host.steady("b", 2 * MS), clock=host.clock)
    assert (found.ratio, found.spread) == (0.5, (0.5, 0.5))
    assert found.wall_ratio == 20.0


def test_the_wall_time_told_is_that_of_the_fastest_run() -> None:
    host = Host()
    times = {"a": 0}

    def one_in_three() -> tuple[int, int]:
        times["a"] += 1
        return (9 * MS if times["a"] % 3 == 0 else MS, MS)

    found = compare_speed(host.file("a", one_in_three), host.steady("b", 2 * MS), clock=host.clock)
    assert (found.one_ms, found.other_ms, found.wall_ratio) == (1.0, 2.0, 0.5)


def test_no_claim_where_the_rounds_contradict_one_another() -> None:
    host = Host()
    times = {"a": 0}

    def noisy() -> tuple[int, int]:
        times["a"] += 1
        wall = MS if times["a"] // 10 % 2 else 3 * MS
        return (wall, wall)

    found = compare_speed(host.file("a", noisy), host.steady("b", 2 * MS), clock=host.clock)
    assert found.spread[0] < 1.0 < found.spread[1]
    assert not found.is_slower


def test_every_second_round_begins_with_the_other_file() -> None:
    host = Host()
    compare_speed(host.steady("a", 10 * MS), host.steady("b", 10 * MS), clock=host.clock)
    warm_up, rounds = host.turns[:4], host.turns[4:]  # one packs weights, one sizes the block
    assert warm_up == ["a", "a", "b", "b"]
    assert rounds[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_slow_file_ends_at_the_limit_with_the_fewest_rounds() -> None:
    host = Host()
    found = compare_speed(host.steady("a", 400 * MS), host.steady("b", 100 * MS), clock=host.clock)
    assert found.rounds == 11
    assert host.wall == (11 + 2) * 500 * MS  # and two warm-ups
    assert found.ratio == 4.0


def test_a_middling_file_gets_the_rounds_that_fit_the_limit() -> None:
    host = Host()
    one, other = host.steady("a", 50 * MS), host.steady("b", 50 * MS)
    found = compare_speed(one, other, limit_s=2.0, clock=host.clock)
    assert found.rounds == 20


def test_runs_that_the_clock_cannot_see_end_and_are_equal() -> None:
    host = Host()
    found = compare_speed(host.steady("a", 0), host.steady("b", 0), clock=host.clock)
    assert found.ratio == found.wall_ratio == 1.0


def test_equal_files_may_differ_a_little() -> None:
    assert not is_slower((1.01, 1.02))
    assert not is_faster((0.97, 0.99))
    assert is_slower((1.2, 1.3))
    assert is_faster((0.5, 0.6))


def test_real_clocks_time_real_runs() -> None:
    found = compare_speed(lambda: sum(range(50)), lambda: sum(range(50)), limit_s=0.0)
    assert found.rounds == 11
    assert found.one_ms > 0
    assert found.ratio > 0


def test_a_slower_file_is_told_with_what_fell_out() -> None:
    line = speed_line(2.96, (2.7, 3.1), outside={"HARD_SWISH": 13}, where=WHERE)
    assert line == (
        "int8 runs 3.0x slower than float (2.70..3.10) here (AMD EPYC, LiteRT 2.3.0, 1 thread): "
        "13 HARD_SWISH run outside XNNPACK; this is no measurement of the board"
    )


@pytest.mark.parametrize(
    ("outside", "words"),
    [
        ({"PAD": 1}, ": 1 PAD runs outside XNNPACK;"),
        ({"PAD": 1, "SOFTMAX": 1}, ": 1 PAD and 1 SOFTMAX run outside XNNPACK;"),
        ({"A": 1, "B": 2, "C": 3}, ": 1 A, 2 B and 3 C run outside XNNPACK;"),
        ({}, "1 thread); this is"),
    ],
)
def test_operators_are_counted_by_name(outside: dict[str, int], words: str) -> None:
    assert words in speed_line(2.0, (1.9, 2.1), outside=outside, where=WHERE)


def test_a_faster_file_blames_no_operator() -> None:
    line = speed_line(0.4, (0.32, 0.5), outside={"PAD": 1}, where=WHERE, threads=4)
    assert "2.5x faster than float (2.00..3.12) here (AMD EPYC, LiteRT 2.3.0, 4 threads);" in line
    assert "PAD" not in line


def test_an_undecided_comparison_claims_nothing() -> None:
    line = speed_line(1.02, (0.97, 1.08), outside={"PAD": 1}, where={})
    assert line.startswith("int8 runs about as fast as float (0.97..1.08 of its time) here (")
    assert "PAD" not in line
