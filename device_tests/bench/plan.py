"""Plans: how many queries, for how long, and what a latency must rest on to be believed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from edgeship.errors import UnknownName

SINGLE_STREAM_QUERIES: Final = 1024
SINGLE_STREAM_S: Final = 60.0
"""MLPerf Inference, scenario single stream: at least 1024 queries and 60 seconds, the next query as
soon as the one before was answered (mlcommons.org, Inference: Edge v1.0, "Scenarios and metrics";
newer rounds ask for 600 seconds)."""
TINY_WINDOWS: Final = 5
TINY_WINDOW_S: Final = 10.0
"""MLPerf Tiny: five windows of at least ten seconds."""
TINY_QUERIES: Final = 10
"""MLPerf Tiny: at least ten inferences in each."""
_REST_S: Final = 60.0
"""For loading, warm-up and writing, beside what a plan takes; a choice."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, in this order: cold, warm-up, windows, heat, sustained.

    Attributes:
        windows: How many times queries are measured, without a pause between.
        min_queries: At least so many in each window.
        min_duration_s: And for at least so long.
        max_duration_s: No window goes on after this, even with fewer queries.
        warm_up_queries: At least so many before the first window, the cold one included.
        warm_up_limit_s: Warm-up ends then, stable or not; 0 does not wait for stability.
        heat_s: How long the board runs on after the windows.
        sustained_s: Length of the window after that; 0 leaves heat and it out.
        sampling_s: Between two looks at the sensors; 0 looks at the begin and the end alone.
    """

    windows: int = 1
    min_queries: int = SINGLE_STREAM_QUERIES
    min_duration_s: float = SINGLE_STREAM_S
    max_duration_s: float = 600.0
    warm_up_queries: int = 10
    warm_up_limit_s: float = 30.0
    heat_s: float = 60.0
    sustained_s: float = 30.0
    sampling_s: float = 1.0

    @property
    def limit_s(self) -> float:
        """The longest that it can take, were each query short against its window."""
        windows = self.windows * self.max_duration_s
        return self.warm_up_limit_s + windows + self.heat_s + self.sustained_s + _REST_S

    def to_json(self) -> str:
        """As the board takes it."""
        return json.dumps(asdict(self), sort_keys=True)


PLANS: Final = {
    "single-stream": Plan(),
    "tiny": Plan(
        windows=TINY_WINDOWS,
        min_queries=TINY_QUERIES,
        min_duration_s=TINY_WINDOW_S,
        max_duration_s=120.0,
        heat_s=0.0,
        sustained_s=0.0,
    ),
}
COUNTING: Final = Plan(
    min_queries=11,
    min_duration_s=0.0,
    warm_up_queries=3,
    warm_up_limit_s=0.0,
    heat_s=0.0,
    sustained_s=0.0,
    sampling_s=0.0,
)
"""Of counted instructions: choices. They repeat, so that few say it all, and the median of an odd
number is one of them."""


def find_plan(name: str) -> Plan:
    """A plan by its name.

    Raises:
        UnknownName: None is called so.
    """
    try:
        return PLANS[name]
    except KeyError:
        raise UnknownName(kind="plan", name=name, choices=PLANS, where="--plan") from None
