"""Operator times: what single operators of a .tflite file take on this host."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.errors import ExportFailed
from edgeship.evaluate.speed import Clock
from edgeship.runtimes.invocation import open_invocation

_BLOCK_NS: Final = 2_000_000
"""Shortest block of runs, in wall time: long against the step of the CPU clock."""
_MOST_RUNS: Final = 1000
"""Of one block, so that a clock that stands still cannot hold the measurement."""
_ROUNDS: Final = 11
_FEWEST_ROUNDS: Final = 3

_Run = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class OperatorTimes:
    """CPU time of one run on one thread, in us: medians over the rounds.

    Attributes:
        whole_us: Of the whole file.
        by_place: Of operators, each in a file of its own, by their place in the file's first graph;
            those that do not run on made-up inputs are left out.
        names: Of the same operators, in the TFLite schema.
    """

    whole_us: float
    by_place: Mapping[int, float]
    names: Mapping[int, str]


def time_operators(
    file: Path,
    places: Iterable[int] | None = None,
    *,
    limit_s: float = 3.0,
    clock: Clock | None = None,
) -> OperatorTimes:
    """Cut operators out of a file and time them in turns with the whole of it, in LiteRT.

    What runs outside of XNNPACK takes as long in the file: in two of which HARD_SWISH cuts int8
    graphs, the sum of all operators was 1.00 of the whole. Where XNNPACK joins operators the sum
    says too much: 1.7 to 2.3 of the whole for files of element-wise ones (measured).

    Args:
        file: Its first graph is what runs.
        places: Of the operators; None for all.
        limit_s: No further round begins after this, once there were 3.
        clock: For tests.

    Raises:
        ExportFailed: It is no TFLite file, or LiteRT does not run it.
    """
    from edgeship.exporters.tflite.cutting import cut_operator
    from edgeship.exporters.tflite.flatbuffer import operator_name, read_model

    content = file.read_bytes()
    whole = open_invocation(content, name=file.name)
    tables = read_model(content)
    listed = tables.subgraphs[0].operators
    runs: dict[int, _Run] = {}
    names: dict[int, str] = {}
    for place in range(len(listed)) if places is None else places:
        names[place] = operator_name(tables, listed[place])
        cut, name = cut_operator(tables, place), f"{file.name}: {names[place]}"
        with suppress(ExportFailed):  # indices out of range, divisors of 0
            runs[place] = open_invocation(cut, name=name)
    whole_us, *times = _times_us([whole, *runs.values()], limit_s, clock or Clock())
    return OperatorTimes(
        whole_us=whole_us,
        by_place=dict(zip(runs, times, strict=True)),
        names={place: names[place] for place in runs},
    )


def _times_us(runs: Sequence[_Run], limit_s: float, clock: Clock) -> list[float]:
    counts = [_runs_per_block(run, clock) for run in runs]
    rounds: list[list[float]] = []
    start = clock.wall_ns()
    while len(rounds) < _ROUNDS:
        if len(rounds) >= _FEWEST_ROUNDS and clock.wall_ns() - start >= limit_s * 1e9:
            break
        rounds.append(
            [_mean_ns(run, count, clock) for run, count in zip(runs, counts, strict=True)]
        )
    return [statistics.median(found) / 1e3 for found in zip(*rounds, strict=True)]


def _mean_ns(run: _Run, count: int, clock: Clock) -> float:
    before = clock.cpu_ns()
    for _ in range(count):
        run()
    return (clock.cpu_ns() - before) / count


def _runs_per_block(run: _Run, clock: Clock) -> int:
    start = clock.wall_ns()
    for count in range(1, _MOST_RUNS):
        run()
        if clock.wall_ns() - start >= _BLOCK_NS:
            return count
    return _MOST_RUNS
