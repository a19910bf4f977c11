"""Statistics of latencies: percentiles, their intervals, and what speaks against believing them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

_TAIL: Final = 0.025
"""Of a 95 % interval, on either side."""
_DEVIATIONS: Final = 9.0
"""Beyond so many standard deviations a binomial tail is below 1e-9: nothing against 0.025."""
_FEWEST_FOR_MODES: Final = 64
"""LoadGen's early stopping asks for as many queries before it says anything of a tail."""
_TRIMMED: Final = 0.025
"""At either end, so that a few outliers do not pass for a mode; half the smallest mode's share."""
_BINS: Final = 256
"""Otsu's own number of grey levels."""


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Two groups of latencies.

    Attributes:
        low_ns: Median of the quick group.
        high_ns: Median of the slow one.
        share: Of the smaller group, 0..0.5.
        valley: Queries around the middle between both medians over those around the smaller
            group's median: 0 where nothing lies between, about 1 or more where it is one group.
    """

    low_ns: float
    high_ns: float
    share: float
    valley: float


def percentile_ns(latencies: np.ndarray, percent: int) -> int:
    """The latency at index floor(n * percent / 100) of the n sorted ones, counted from 0.

    That is how MLPerf's LoadGen takes it (loadgen/results.cc, ProcessLatencies): an observed value,
    at most one rank above the nearest-rank percentile, and above it only where n * percent / 100 is
    whole.

    Args:
        latencies: int64[n], n >= 1; not changed.
        percent: 0..99.
    """
    rank = latencies.size * percent // 100
    return int(np.partition(latencies, rank)[rank])


def percentile_interval_ns(latencies: np.ndarray, percent: int) -> tuple[int, int] | None:
    """95 % confidence interval of a percentile by order statistics; None of too few queries.

    It assumes nothing about the distribution: of n independent queries, the number below the true
    percentile is binomial (David and Nagaraja, Order Statistics, 3rd edition, section 7.1). Queries
    that follow each other are alike on a busy machine, so n is first reduced to the number of
    independent ones that say as much (`independent_queries`).
    """
    ordered = np.sort(latencies)
    count = independent_queries(latencies, percent)
    ranks = interval_ranks(count, percent)
    if ranks is None:
        return None
    low = math.floor((ranks[0] - 1) / count * ordered.size)
    high = math.ceil(ranks[1] / count * ordered.size) - 1
    return int(ordered[low]), int(ordered[high])


def interval_ranks(count: int, percent: int) -> tuple[int, int] | None:
    """Ranks (from 1) of n ordered values between which a percentile lies in 95 of 100 cases.

    The closest ones that leave at most 2.5 % on either side; None where the smallest or the largest
    value cannot be that sure (of p95: below 72 values).
    """
    share = percent / 100
    centre, deviation = count * share, math.sqrt(count * share * (1 - share))
    first = max(0, math.floor(centre - _DEVIATIONS * deviation))
    last = min(count, math.ceil(centre + _DEVIATIONS * deviation))
    chances = np.exp([_log_binomial(number, count, share) for number in range(first, last + 1)])
    below = np.cumsum(chances)  # P(K <= first + i)
    above = np.cumsum(chances[::-1])[::-1]  # P(K >= first + i)
    lows, highs = np.flatnonzero(below <= _TAIL), np.flatnonzero(above <= _TAIL)
    if not lows.size or not highs.size:
        return None
    return first + int(lows[-1]) + 1, first + int(highs[0])


def independent_queries(latencies: np.ndarray, percent: int) -> int:
    """How many independent queries say as much of a percentile as these, 1..n.

    n (1 - r) / (1 + r), where r is the lag-1 autocorrelation of "is above the percentile": the
    effective number of observations of a first-order chain (Bayley and Hammersley, Journal of the
    Royal Statistical Society, Supplement 8, 1946). Negative correlation is not counted in our
    favour.
    """
    above = (latencies > percentile_ns(latencies, percent)).astype(np.float64)
    centred = above - above.mean()
    power = float(centred @ centred)
    r = float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 1.0)
    return max(1, int(latencies.size * (1 - r) / (1 + r)))


def drift(latencies: np.ndarray) -> float:
    """Median of the second half over that of the first one, less 1; 0 of fewer than two queries."""
    if latencies.size < 2:
        return 0.0
    first, second = np.array_split(latencies, 2)
    return float(np.median(second) / max(1.0, float(np.median(first))) - 1.0)


def two_modes(latencies: np.ndarray) -> Modes | None:
    """Split latencies where two groups differ most; None of fewer than 64 queries, or equal ones.

    The split is Otsu's (IEEE Transactions on Systems, Man, and Cybernetics 9, 1979) over the
    logarithms; it always finds one. Whether there are two groups, the valley says, as in the
    bimodal amplitude of Zhang, Mapes and Soden (Q. J. R. Meteorol. Soc. 129, 2003): a normal, a
    uniform and a skewed distribution have none.
    """
    if latencies.size < _FEWEST_FOR_MODES:
        return None
    logs = np.sort(np.log(np.maximum(latencies, 1)))
    cut = int(logs.size * _TRIMMED)
    inner = logs[cut : logs.size - cut]
    if inner[0] == inner[-1]:
        return None
    split = _otsu(inner)
    low, high = logs[logs <= split], logs[logs > split]
    low_median, high_median = float(np.median(low)), float(np.median(high))
    width = (high_median - low_median) / 3

    def around(centre: float) -> int:
        return int(np.count_nonzero(np.abs(logs - centre) <= width / 2))

    smaller = low_median if low.size < high.size else high_median
    between = around((low_median + high_median) / 2)
    return Modes(
        low_ns=math.exp(low_median),
        high_ns=math.exp(high_median),
        share=min(low.size, high.size) / logs.size,
        valley=between / max(1, around(smaller)),
    )


def _otsu(values: np.ndarray) -> float:
    """The edge between bins that makes the variance between both sides largest."""
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    left = np.cumsum(counts)[:-1].astype(np.float64)
    sums = np.cumsum(counts * centres)
    right = values.size - left
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums[:-1] / left - (sums[-1] - sums[:-1]) / right
    between = np.where((left > 0) & (right > 0), left * right * apart**2, -1.0)
    # Where nothing lies between two groups, every edge there is as good: the middle one.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[best.size // 2]])


def _log_binomial(number: int, count: int, share: float) -> float:
    return (
        math.lgamma(count + 1)
        - math.lgamma(number + 1)
        - math.lgamma(count - number + 1)
        + number * math.log(share)
        + (count - number) * math.log1p(-share)
    )
