from collections.abc import Callable
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from edgeship.device_tests.bench.statistics import (
    drift,
    independent_queries,
    interval_ranks,
    percentile_interval_ns,
    percentile_ns,
    two_modes,
)

MS = 1_000_000


def binomial_below(limit: int, count: int, percent: int) -> Fraction:
    """P(K <= limit), exactly."""
    share = Fraction(percent, 100)
    return sum(
        (comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(limit + 1)),
        Fraction(0),
    )


def normal(seed: int, count: int, centre: float = 5 * MS, width: float = 0.1 * MS) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, width, count).astype(np.int64)


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
@pytest.mark.parametrize("count", [1, 7, 99, 1023, 1601])
def test_a_percentile_is_the_one_of_numpy_where_no_rank_is_whole(count: int, percent: int) -> None:
    assert count * percent % 100
    values = normal(count, count)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentile_ns(values, percent) == expected


def test_a_whole_rank_takes_the_next_one_as_loadgen_does() -> None:
    values = np.arange(1000)[::-1].copy()
    # loadgen/results.cc: latencies[sample_count * percentile], after sorting
    assert [percentile_ns(values, percent) for percent in (50, 90, 95, 99)] == [500, 900, 950, 990]


def test_the_percentile_leaves_its_argument_as_it_was() -> None:
    values = np.array([3, 1, 2])
    percentile_ns(values, 50)
    assert values.tolist() == [3, 1, 2]


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
@pytest.mark.parametrize("count", [72, 100, 300])
def test_interval_ranks_are_the_closest_that_exact_binomials_allow(
    count: int, percent: int
) -> None:
    ranks = interval_ranks(count, percent)
    tail = Fraction(25, 1000)
    if ranks is None:  # the largest value is not surely above the percentile
        assert 1 - binomial_below(count - 1, count, percent) > tail
        return
    low, high = ranks
    assert binomial_below(low - 1, count, percent) <= tail < binomial_below(low, count, percent)
    assert 1 - binomial_below(high - 1, count, percent) <= tail
    assert 1 - binomial_below(high - 2, count, percent) > tail


def test_p95_has_no_interval_below_72_queries() -> None:
    assert interval_ranks(71, 95) is None
    assert interval_ranks(72, 95) is not None


def test_the_interval_holds_the_true_percentile_in_95_of_100_runs() -> None:
    # Uniform on 0..1e9, so that the true p95 is known: 0.95e9. Of 1000 intervals that cover it with
    # a chance of at least 0.95 (exactly: 0.955 of 400 queries), fewer than 928 do so in 1 of 1000.
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        found = percentile_interval_ns(rng.integers(0, 10**9, 400), 95)
        assert found is not None
        covered += found[0] <= 950_000_000 <= found[1]
    assert covered >= 928


def test_queries_that_follow_each_other_alike_count_for_fewer() -> None:
    independent = normal(1, 2000)
    repeated = np.repeat(normal(2, 200), 10)  # blocks of ten equal latencies
    assert independent_queries(independent, 95) > 1500
    assert independent_queries(repeated, 95) < 300
    alone = percentile_interval_ns(independent, 95)
    together = percentile_interval_ns(repeated, 95)
    assert alone is not None
    assert together is not None
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_equal_latencies_are_their_own_interval() -> None:
    assert percentile_interval_ns(np.full(200, 7), 95) == (7, 7)


def test_drift_compares_halves() -> None:
    values = np.r_[np.full(50, 1000), np.full(50, 1100)]
    assert drift(values) == pytest.approx(0.1)
    assert drift(values[::-1]) == pytest.approx(-1 / 11)
    assert drift(values[:1]) == 0.0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("gap", [1.15, 2.0, 10.0])
def test_two_groups_are_found_with_their_share(share: float, gap: float) -> None:
    slow = round(2000 * share)
    values = np.r_[normal(3, 2000 - slow), normal(4, slow, gap * 5 * MS)]
    modes = two_modes(np.random.default_rng(0).permutation(values))
    assert modes is not None
    assert modes.valley < 0.2
    assert modes.share == pytest.approx(min(share, 1 - share), abs=0.005)
    assert modes.high_ns / modes.low_ns == pytest.approx(gap, rel=0.02)


ONE_GROUP: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.normal(1.0, 0.05, 2000),
    "wide normal": lambda rng: rng.normal(1.0, 0.2, 2000).clip(0.2),
    "uniform": lambda rng: rng.uniform(1.0, 2.0, 2000),
    "exponential tail": lambda rng: 1.0 + rng.exponential(0.3, 2000),
    "log-normal": lambda rng: rng.lognormal(0.0, 0.5, 2000),
    "few outliers": lambda rng: np.r_[rng.normal(1.0, 0.02, 1960), rng.normal(8.0, 1.0, 40)],
    "heavy tail": lambda rng: 1.0 + rng.pareto(1.5, 2000),
}


@pytest.mark.parametrize("name", ONE_GROUP)
def test_one_group_is_not_taken_for_two(name: str) -> None:
    for seed in range(20):
        values = ONE_GROUP[name](np.random.default_rng(seed)) * 5 * MS
        modes = two_modes(values.astype(np.int64))
        assert modes is not None
        assert modes.valley > 0.5 or modes.share < 0.05, f"seed {seed}: {modes}"


def test_equal_or_few_latencies_have_no_groups() -> None:
    assert two_modes(np.full(500, 9)) is None
    assert two_modes(np.r_[np.full(30, 1), np.full(30, 9)]) is None
