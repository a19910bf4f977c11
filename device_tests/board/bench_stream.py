"""Bench stream: queries one after the other, each one timed (runs on Python 3.6)."""

import sys
import time
from array import array
from typing import Any, Callable, Dict, List, Optional, Sequence

from edgeship.device_tests.board.bench_plan import Plan

WINDOW_QUERIES = 10
"""Of one look at stability, as Georges, Buytaert and Eeckhout (Statistically rigorous Java
performance evaluation, OOPSLA 2007) look at the last 10 iterations."""
WINDOW_NS = 200000000
"""At least, of one look: 20 times the 10 ms after which a governor typically looks at the load
again (kernel, admin-guide/pm/cpufreq, sampling_rate)."""
STABLE_WINDOWS = 3
"""A choice: two can agree by chance on the way down."""
STABLE = 0.02
"""Of the medians of those windows. Georges et al. take the steady state as reached below 0.01 or
0.02; medians, since one interrupt makes an outlier that says nothing of the steady state."""


def perf_ns() -> Callable[[], int]:
    """A clock that is never set, in ns: Python 3.6 has it in seconds only."""
    exact = getattr(time, "perf_counter_ns", None)
    if exact is not None:
        return exact  # type: ignore[no-any-return]
    return lambda: int(time.perf_counter() * 1e9)


class Stream:
    """Runs queries and keeps the latency of each.

    Attributes:
        latencies: In ns, in the order in which they were run.
        phases: One object each: name, count, begin_ns and end_ns by the clock.
        is_stable: What warm-up found; None where it was not asked to find out.
    """

    def __init__(
        self, run: Callable[[Any], Any], cases: Sequence[Any], clock_ns: Callable[[], int]
    ) -> None:
        self._run = run
        self._cases = cases
        self._clock_ns = clock_ns
        self.latencies = array("q")
        self.phases: List[Dict[str, Any]] = []
        self.is_stable: Optional[bool] = None

    def run_plan(self, plan: Plan, on_phase: Callable[[str], None]) -> None:
        """Everything of a plan; `on_phase` hears the name of each phase before it begins."""
        self._phase("cold", on_phase, lambda: self._queries(1, 0))
        self._phase("warm-up", on_phase, lambda: self._warm_up(plan))
        for _ in range(plan.windows):
            self._phase(
                "window",
                on_phase,
                lambda: self._queries(
                    plan.min_queries, _ns(plan.min_duration_s), _ns(plan.max_duration_s)
                ),
            )
        if plan.sustained_s > 0:
            self._phase("heat", on_phase, lambda: self._queries(0, _ns(plan.heat_s)))
            self._phase("sustained", on_phase, lambda: self._queries(1, _ns(plan.sustained_s)))

    def write(self, path: str) -> None:
        """All latencies as little-endian int64."""
        values = self.latencies
        if sys.byteorder == "big":
            values = array("q", values)
            values.byteswap()
        with open(path, "wb") as file:
            values.tofile(file)

    def _phase(self, name: str, on_phase: Callable[[str], None], body: Callable[[], None]) -> None:
        on_phase(name)
        count, begin = len(self.latencies), self._clock_ns()
        body()
        self.phases.append(
            {
                "name": name,
                "count": len(self.latencies) - count,
                "begin_ns": begin,
                "end_ns": self._clock_ns(),
            }
        )

    def _queries(self, least: int, least_ns: int, most_ns: int = 0) -> None:
        """At least so many and so long; the next one is issued when the one before was answered."""
        run, cases, clock, latencies = self._run, self._cases, self._clock_ns, self.latencies
        many, done = len(cases), 0
        start = now = clock()
        while done < least or now - start < least_ns:
            if most_ns and now - start >= most_ns:
                return
            case = cases[done % many]
            before = clock()
            run(case)
            now = clock()
            latencies.append(now - before)
            done += 1

    def _warm_up(self, plan: Plan) -> None:
        """Until the medians of three looks in a row agree, or the time is up."""
        self._queries(plan.warm_up_queries - len(self.latencies), 0)
        if plan.warm_up_limit_s <= 0:
            return
        medians: List[float] = []
        start = self._clock_ns()
        while self._clock_ns() - start < _ns(plan.warm_up_limit_s):
            begin = len(self.latencies)
            self._queries(WINDOW_QUERIES, WINDOW_NS)
            medians.append(_median(self.latencies[begin:]))
            last = medians[-STABLE_WINDOWS:]
            if len(last) == STABLE_WINDOWS and max(last) <= min(last) * (1 + STABLE):
                self.is_stable = True
                return
        self.is_stable = False


def _median(values: Sequence[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
