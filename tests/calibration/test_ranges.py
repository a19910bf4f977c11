import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.ranges import Range, percentile_range, solve_ranges
from edgeship.calibration.statistics import TensorStatistics, empty_statistics
from edgeship.project import RangePolicy
from edgeship.vocabulary import RangeMethod

EXAMPLES = settings(max_examples=80, derandomize=True, deadline=None)
MIN_MAX = RangePolicy()
MASK = float(np.float32(-3.4e38))

values_lists = st.lists(
    st.floats(-8, 8, width=32) | st.sampled_from([0.0, 1.0, 2.0**-130, 2.0**90, -3.0]),
    min_size=1,
    max_size=200,
)
percentiles = st.sampled_from([50.5, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0]) | st.floats(
    50, 100, exclude_min=True
)


def statistics_of(values: list[float] | np.ndarray) -> TensorStatistics:
    statistics = empty_statistics(1)
    statistics.add(np.array(values, np.float32).reshape(1, 1, -1), 1)
    return statistics


def percentile_policy(percentile: float) -> RangePolicy:
    return RangePolicy(method=RangeMethod.PERCENTILE, percentile=percentile)


def exact_cut(values: list[float], percentile: float) -> tuple[float, float]:
    """Smallest and largest value that remain after cutting (100 - p) / 2 percent off each end."""
    ordered = sorted(values)
    cut = math.floor(len(ordered) * (100 - Fraction(percentile)) / 200)
    return ordered[cut], ordered[len(ordered) - 1 - cut]


@EXAMPLES
@given(values_lists)
def test_min_max_is_exact(values: list[float]) -> None:
    solved = solve_ranges({"x": statistics_of(values)}, MIN_MAX)
    assert solved.by_name == {"x": Range(low=min(values), high=max(values))}


@EXAMPLES
@given(values_lists, percentiles)
def test_percentile_is_the_exact_cut_to_within_one_bin(
    values: list[float], percentile: float
) -> None:
    item = statistics_of(values)
    found = percentile_range(item, percentile)
    low, high = exact_cut(values, percentile)
    width = math.ldexp(1.0, item.exponent - 10)
    assert 0 <= low - found.low < width, (low, found, width)
    assert 0 <= found.high - high <= width, (high, found, width)


@EXAMPLES
@given(values_lists, percentiles)
def test_percentile_lies_within_the_extremes(values: list[float], percentile: float) -> None:
    found = percentile_range(statistics_of(values), percentile)
    assert min(values) <= found.low <= found.high <= max(values)


@EXAMPLES
@given(values_lists)
def test_percentile_100_is_min_max(values: list[float]) -> None:
    statistics = {"x": statistics_of(values)}
    assert solve_ranges(statistics, percentile_policy(100.0)) == solve_ranges(statistics, MIN_MAX)


@EXAMPLES
@given(values_lists, st.lists(percentiles, min_size=2, max_size=2).map(sorted))
def test_a_larger_percentile_never_has_a_smaller_range(
    values: list[float], pair: list[float]
) -> None:
    item = statistics_of(values)
    narrow, wide = percentile_range(item, pair[0]), percentile_range(item, pair[1])
    assert wide.low <= narrow.low
    assert wide.high >= narrow.high


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
def test_percentile_follows_numpy_on_many_values(percentile: float) -> None:
    values = np.random.default_rng(5).standard_normal(200_000).astype(np.float32)
    item = statistics_of(values)
    found = percentile_range(item, percentile)
    beyond = (100 - percentile) / 200
    expected = np.quantile(values.astype(np.float64), [beyond, 1 - beyond], method="inverted_cdf")
    width = math.ldexp(1.0, item.exponent - 10)
    apart = np.abs(np.array([found.low, found.high]) - expected)
    # one bin, and the neighbouring order statistic where the rank rounds the other way: in these
    # tails neighbours are less than a bin apart
    assert apart.max() <= 2 * width, (found, expected, width)


def test_an_outlier_is_cut_and_the_uncut_end_is_exact() -> None:
    values = [*np.linspace(0.1, 1.0, 999).tolist(), 500.0]
    found = percentile_range(statistics_of(values), 99.8)
    assert found.low == float(np.float32(0.1))
    assert 1.0 <= found.high <= 1.0 + 512 / 1024


def test_percentile_of_a_constant_is_the_constant() -> None:
    assert percentile_range(statistics_of([0.3] * 50), 99.0) == Range(
        low=float(np.float32(0.3)), high=float(np.float32(0.3))
    )


@pytest.mark.parametrize(
    "policy",
    [
        MIN_MAX,
        percentile_policy(99.0),
        *(RangePolicy(method=one) for one in (RangeMethod.EMA, RangeMethod.MSE, RangeMethod.KL)),
    ],
    ids=lambda policy: str(policy.method),
)
def test_what_a_policy_cuts_off_is_still_known(policy: RangePolicy) -> None:
    values = np.random.default_rng(6).standard_normal(200_000).astype(np.float32)
    values[7] = 9.0
    item = empty_statistics(4)
    for part in np.split(values, 4):
        item.add(part.reshape(1, 1, -1), 1)
    solved = solve_ranges({"x": item}, policy)
    assert solved.unclipped == {"x": Range(low=float(values.min()), high=9.0)}
    is_cut = policy.method is not RangeMethod.MIN_MAX
    assert (solved.by_name["x"].high < 9.0) == is_cut
    assert ("x" in solved.seen) == is_cut


def test_dead_tensors_are_listed_and_ranged() -> None:
    statistics = {
        "alive": statistics_of([0.0, 1.0]),
        "dead": statistics_of([0.0, -0.0]),
        "tiny": statistics_of([0.0, 1e-45]),
    }
    solved = solve_ranges(statistics, MIN_MAX)
    assert solved.dead == ("dead",)
    assert solved.masks == ()
    assert solved.by_name["dead"] == Range(low=0.0, high=0.0)
    assert solved.by_name["tiny"].high > 0


def test_masks_are_listed_and_not_called_dead() -> None:
    statistics = {
        "mask": statistics_of([0.0, MASK]),
        "only": statistics_of([MASK, MASK]),
        "scores": statistics_of([1.0, MASK]),
        "plain": statistics_of([1.0, 2.0]),
    }
    solved = solve_ranges(statistics, MIN_MAX)
    assert solved.masks == ("mask", "only", "scores")
    assert solved.dead == ()
    assert set(solved.by_name) == {"mask", "scores", "plain"}


@pytest.mark.parametrize("policy", [MIN_MAX, percentile_policy(99.9)], ids=str)
def test_a_tensor_of_which_nothing_was_seen_has_no_range(policy: RangePolicy) -> None:
    solved = solve_ranges({"x": empty_statistics(3)}, policy)
    assert solved.by_name == {}
    assert solved.dead == ()


def test_no_tensors_have_no_ranges() -> None:
    solved = solve_ranges({}, MIN_MAX)
    assert (dict(solved.by_name), solved.dead, solved.masks) == ({}, (), ())
