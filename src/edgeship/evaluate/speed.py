"""Speed: how long one file takes against another on this host, run in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

Run = Callable[[], object]
"""Runs a loaded file once, always with the same inputs."""

_BLOCK_NS: Final = 5_000_000
"""Shortest block of runs: long against the clock's step, short against what disturbs a host."""
_MOST_RUNS: Final = 1000
"""Of one block, so that a clock that stands still cannot hold the measurement."""
_MOST_ROUNDS: Final = 41
_FEWEST_ROUNDS: Final = 11
"""Of two equal files the lower quartile of 11 ratios is above 1 in about 2 of 100 measurements
(binomial: at least 9 of 11 above), of 41 ratios in 1 of 1000."""
_SAME: Final = 1.05
"""Two sessions of one file differ by where their memory lies, and by what else runs: their lower
quartiles were at most 1.04, the upper ones at least 0.98 (measured: 80 comparisons with LiteRT
2.3.0 on two cores, half of them beside three busy processes)."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Wall time and CPU time of this process, each in ns from any start."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns


@dataclass(frozen=True, kw_only=True)
class SpeedRatio:
    """Time of one file over time of another: above 1 where the first one takes longer.

    Attributes:
        ratio: Of CPU time: median over the rounds, each the quotient of two blocks.
        spread: Lower and upper quartile of the rounds' ratios.
        wall_ratio: The same of wall time, of the fastest run in each block.
        one_ms: Wall time of the fastest run of the first file: median over the rounds.
        other_ms: The same of the other file.
        rounds: How many times each file had its turn.
    """

    ratio: float
    spread: tuple[float, float]
    wall_ratio: float
    one_ms: float
    other_ms: float
    rounds: int

    @property
    def is_slower(self) -> bool:
        """See `is_slower`."""
        return is_slower(self.spread)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Of several runs of one file: wall time of the fastest, CPU time of a mean one, in ns."""

    wall_ns: float
    cpu_ns: float


def compare_speed(
    one: Run, other: Run, *, limit_s: float = 3.0, clock: Clock | None = None
) -> SpeedRatio:
    """Time two loaded files in turns, so that what disturbs the host disturbs both.

    The ratio is that of CPU time, which leaves out the time in which other processes had the CPU:
    on two busy cores two sessions of one file came out at 0.92 to 1.07 by CPU time, and at 0.46 to
    1.18 by the fastest wall time of each block (measured, 144 comparisons).
    It is the ratio of latencies as long as each file runs on one thread.

    A round is a block of runs of each file; every second round begins with the other one, so that
    a drift of the host's speed favours neither.

    Args:
        one: Runs the file in question, for instance the integer one, on one thread.
        other: What it is held against, for instance the float one.
        limit_s: No further round begins after this, once there were 11; warm-up comes before.
        clock: For tests.
    """
    clock = clock or Clock()
    runs = (one, other)
    counts = [_runs_per_block(run, clock) for run in runs]
    rounds: list[tuple[_Block, _Block]] = []
    start = clock.wall_ns()
    while len(rounds) < _MOST_ROUNDS:
        if len(rounds) >= _FEWEST_ROUNDS and clock.wall_ns() - start >= limit_s * 1e9:
            break
        order = (0, 1) if len(rounds) % 2 == 0 else (1, 0)
        blocks = {turn: _time_block(runs[turn], counts[turn], clock) for turn in order}
        rounds.append((blocks[0], blocks[1]))
    return _summary(rounds)


def is_slower(spread: tuple[float, float]) -> bool:
    """Whether three of four rounds took longer, by more than two equal files differ."""
    return spread[0] > _SAME


def is_faster(spread: tuple[float, float]) -> bool:
    """Whether three of four rounds took less time, by more than two equal files differ."""
    return spread[1] < 1.0 / _SAME


def speed_line(
    ratio: float,
    spread: tuple[float, float],
    *,
    outside: Mapping[str, int],
    where: Mapping[str, str],
    threads: int = 1,
    precision: str = "int8",
) -> str:
    """What the comparison with the float file says, as a line for people.

    Args:
        ratio: As in `SpeedRatio`, of the `precision` file over the float file.
        spread: As in `SpeedRatio`.
        outside: Operators that fell out of the delegate, by name.
        where: As in `Evidence.where`: `cpu`, `runtime`, `version`.
        threads: Of the runtime.
        precision: Of the file.
    """
    host = ", ".join(
        [
            where.get("cpu", "this host"),
            f"{where.get('runtime', '')} {where.get('version', '')}".strip(),
            f"{threads} thread{'' if threads == 1 else 's'}",
        ]
    )
    said = f"{precision} runs {_times(ratio, spread)} here ({host})"
    if is_slower(spread) and outside:
        said += f": {_outside_words(outside)} outside XNNPACK"
    return f"{said}; this is no measurement of the board"


def _runs_per_block(run: Run, clock: Clock) -> int:
    """Warm a file up and see how many runs fill a block.

    The first run packs weights and touches memory for the first time; it is not counted.
    """
    run()
    start, count = clock.wall_ns(), 0
    while count < _MOST_RUNS and clock.wall_ns() - start < _BLOCK_NS:
        run()
        count += 1
    return count


def _time_block(run: Run, count: int, clock: Clock) -> _Block:
    times = []
    cpu_start = clock.cpu_ns()
    before = clock.wall_ns()
    for _ in range(count):
        run()
        after = clock.wall_ns()
        times.append(after - before)
        before = after
    cpu_ns = (clock.cpu_ns() - cpu_start) / count
    return _Block(wall_ns=min(times), cpu_ns=cpu_ns)


def _summary(rounds: list[tuple[_Block, _Block]]) -> SpeedRatio:
    ratios = [_quotient(one.cpu_ns, other.cpu_ns) for one, other in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return SpeedRatio(
        ratio=middle,
        spread=(low, high),
        wall_ratio=statistics.median(
            _quotient(one.wall_ns, other.wall_ns) for one, other in rounds
        ),
        one_ms=statistics.median(one.wall_ns for one, _ in rounds) / 1e6,
        other_ms=statistics.median(other.wall_ns for _, other in rounds) / 1e6,
        rounds=len(rounds),
    )


def _quotient(one_ns: float, other_ns: float) -> float:
    """At least one step of the clock each: a run that it cannot see takes no less than that."""
    return max(one_ns, 1.0) / max(other_ns, 1.0)


def _times(ratio: float, spread: tuple[float, float]) -> str:
    """Slower or faster only where the spread clears what equal files show."""
    low, high = spread
    if is_slower(spread):
        return f"{ratio:.1f}x slower than float ({low:.2f}..{high:.2f})"
    if is_faster(spread):
        return f"{1 / ratio:.1f}x faster than float ({1 / high:.2f}..{1 / low:.2f})"
    return f"about as fast as float ({low:.2f}..{high:.2f} of its time)"


def _outside_words(outside: Mapping[str, int]) -> str:
    """`13 HARD_SWISH and 1 PAD run`."""
    parts = [f"{count} {name}" for name, count in outside.items()]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{listed} {'run' if sum(outside.values()) > 1 else 'runs'}"
