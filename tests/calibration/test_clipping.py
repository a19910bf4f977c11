import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.clipping import LEVELS, bin_centres, kl_bounds, mse_bounds
from edgeship.calibration.ranges import Range, percentile_range, solve_ranges
from edgeship.calibration.statistics import BINS, TensorStatistics, empty_statistics
from edgeship.project import RangePolicy
from edgeship.vocabulary import RangeMethod

EXAMPLES = settings(max_examples=40, derandomize=True, deadline=None)
COUNT = 20_000
SHARES = np.arange(1, 129) / 128

Bounds = Callable[[TensorStatistics], tuple[float, float]]


def draw(name: str) -> np.ndarray:
    """float32[20000] of a shape that activations have."""
    generator = np.random.default_rng(7)
    normal = generator.standard_normal(COUNT)
    drawn = {
        "normal": normal,
        "uniform": generator.uniform(-1, 1, COUNT),
        "laplace": generator.laplace(size=COUNT),
        "student t": generator.standard_t(3, COUNT),
        "relu": np.maximum(normal, 0),
        "shifted relu": np.maximum(normal - 1, 0),
        "positive": 5 + generator.uniform(0, 1, COUNT),
        "gelu": normal * (1 + np.vectorize(math.erf)(normal / math.sqrt(2))) / 2,
        "one outlier": np.append(normal[1:], 60.0),
        "negative": -np.abs(normal),
    }
    values: np.ndarray = drawn[name].astype(np.float32)
    return values


SHAPES = [
    "normal",
    "uniform",
    "laplace",
    "student t",
    "relu",
    "shifted relu",
    "positive",
    "gelu",
    "one outlier",
    "negative",
]


def statistics_of(values: np.ndarray) -> TensorStatistics:
    statistics = empty_statistics(1)
    statistics.add(values.reshape(1, 1, -1), 1)
    return statistics


def rounding_error(values: np.ndarray, low: float, high: float) -> float:
    """Sum of squares of what 8 asymmetric bits lose: really rounded, the zero point too."""
    scale = (high - low) / (LEVELS - 1)
    zero = round(-low / scale)
    steps = np.clip(np.rint(values.astype(np.float64) / scale) + zero, 0, LEVELS - 1)
    return float(((steps - zero) * scale - values).__pow__(2).sum())


def with_zero(values: np.ndarray) -> tuple[float, float]:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def information_loss_by_hand(counts: list[float], threshold: int) -> float:
    """Migacz, GTC 2017, slides 38 and 39, bin by bin; a bin that only P fills is 1e-4 of Q."""
    reference = counts[:threshold]
    reference[-1] += sum(counts[threshold:])
    spread = [0.0] * threshold
    for level in range(128):
        members = [k for k in range(threshold) if k * 128 // threshold == level]
        filled = [k for k in members if counts[k] > 0]
        for k in filled:
            spread[k] = sum(counts[m] for m in members) / len(filled)
    if not any(spread):
        return math.inf
    spread = [1e-4 if p and not q else q for p, q in zip(reference, spread, strict=True)]
    total_p, total_q = sum(reference), sum(spread)
    loss = 0.0
    for p, q in zip(reference, spread, strict=True):
        if p > 0:
            loss += p / total_p * math.log((p / total_p) / (q / total_q))
    return loss


def magnitudes_of(item: TensorStatistics) -> list[float]:
    """Counts of |x| in bins of R / 1024, the first one as the second; the rest are folded over."""
    half = BINS // 2
    counts = [float(item.counts[half + k] + item.counts[half - 1 - k]) for k in range(half)]
    return [counts[1], *counts[1:]]


@pytest.mark.parametrize("name", SHAPES)
def test_mse_is_nearly_the_best_share_of_a_search_with_real_rounding(name: str) -> None:
    values = draw(name)
    low, high = with_zero(values)
    errors = [rounding_error(values, low * share, high * share) for share in SHARES]
    found = rounding_error(values, *mse_bounds(statistics_of(values)))
    # Two approximations: step**2 / 12 for a cell over which the density is not even, and a bin's
    # centre for its values, off by at most R / 2048 where a step is up to 2 R / 255. The worst of
    # these shapes loses 4 %.
    best = int(np.argmin(errors))
    assert found <= 1.05 * errors[best], (found / errors[best], SHARES[best])


@pytest.mark.parametrize("name", SHAPES)
def test_mse_never_loses_more_than_min_max(name: str) -> None:
    values = draw(name)
    found = rounding_error(values, *mse_bounds(statistics_of(values)))
    assert found <= 1.05 * rounding_error(values, *with_zero(values))  # 1.05: as above


def test_mse_gives_up_a_heavy_tail() -> None:
    values = draw("student t")
    low, high = mse_bounds(statistics_of(values))
    assert high - low < 0.97 * float(np.ptp(values))
    assert rounding_error(values, low, high) < rounding_error(values, *with_zero(values))


def test_mse_of_a_normal_tensor_clips_its_tails() -> None:
    """Banner et al. 2019 find 3.92 standard deviations at 8 bits, of a symmetric clip."""
    values = np.random.default_rng(1).standard_normal(2_000_000).astype(np.float32)
    low, high = mse_bounds(statistics_of(values))
    assert (high - low) / 2 == pytest.approx(3.92, rel=0.03)


def test_mse_of_even_values_is_min_max() -> None:
    values = draw("uniform")
    assert mse_bounds(statistics_of(values)) == (float(values.min()), float(values.max()))


def test_mse_keeps_a_lone_outlier_that_costs_more_than_it_takes() -> None:
    """Cutting 60 down to 10 costs 2,500; the finer steps save less than 20,000 * 0.24**2 / 12."""
    low, high = mse_bounds(statistics_of(draw("one outlier")))
    assert high > 40
    assert low < 0


@pytest.mark.parametrize("name", ["normal", "laplace", "student t", "relu", "gelu", "one outlier"])
def test_kl_is_the_threshold_that_migacz_finds(name: str) -> None:
    item = statistics_of(draw(name))
    counts = magnitudes_of(item)
    last = max(index for index, count in enumerate(counts) if count) + 1
    # all thresholds take minutes in plain Python: some of them, and those around the one found
    bound = max(-kl_bounds(item)[0], kl_bounds(item)[1])
    width = math.ldexp(1.0, item.exponent - 10)
    found = min(math.ceil(bound / width), last)
    tried = sorted({*range(128, last + 1, 29), *range(max(128, found - 3), min(last, found + 3))})
    losses = {threshold: information_loss_by_hand(counts, threshold) for threshold in tried}
    best = min(losses.values())
    assert information_loss_by_hand(counts, found) <= best * (1 + 1e-9), (found, losses)


def test_kl_clips_an_outlier_and_keeps_what_lies_inside() -> None:
    values = draw("one outlier")
    low, high = kl_bounds(statistics_of(values))
    assert low == float(values.min())
    assert 3 < high < 12


def test_zeros_do_not_narrow_the_kl_range() -> None:
    """Where they counted, ResNet-20 with ranges = "kl" fell from 81 % to 49 %."""
    values = draw("relu")
    sparse = np.concatenate((values, np.zeros(10 * COUNT, np.float32)))
    assert kl_bounds(statistics_of(sparse)) == kl_bounds(statistics_of(values))
    assert kl_bounds(statistics_of(values))[1] > 0.6 * float(values.max())


def test_kl_does_not_cut_values_that_begin_far_from_zero() -> None:
    values = draw("positive")
    assert kl_bounds(statistics_of(values)) == (float(values.min()), float(values.max()))


def test_kl_is_symmetric_before_the_extremes_cut_it() -> None:
    low, high = kl_bounds(statistics_of(draw("student t")))
    assert low == -high


@pytest.mark.parametrize("bounds", [mse_bounds, kl_bounds])
@pytest.mark.parametrize("name", SHAPES)
def test_bounds_lie_within_the_extremes_and_zero(bounds: Bounds, name: str) -> None:
    values = draw(name)
    low, high = bounds(statistics_of(values))
    assert with_zero(values)[0] <= low <= high <= with_zero(values)[1]


@EXAMPLES
@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=60), st.sampled_from([0, 1]))
def test_any_values_have_bounds_within_the_extremes_and_zero(
    values: list[float], which: int
) -> None:
    array = np.array(values, np.float32)
    low, high = (mse_bounds, kl_bounds)[which](statistics_of(array))
    assert with_zero(array)[0] <= low <= high <= with_zero(array)[1]


@pytest.mark.parametrize("bounds", [mse_bounds, kl_bounds])
@pytest.mark.parametrize("power", [-20, -1, 3, 30])
@pytest.mark.parametrize("name", ["laplace", "relu"])
def test_bounds_scale_exactly_with_powers_of_two(bounds: Bounds, power: int, name: str) -> None:
    values = draw(name)
    low, high = bounds(statistics_of(values))
    scaled = bounds(statistics_of(np.ldexp(values, power)))
    assert scaled == (math.ldexp(low, power), math.ldexp(high, power))


@pytest.mark.parametrize("bounds", [mse_bounds, kl_bounds])
@pytest.mark.parametrize("name", ["relu", "shifted relu"])
def test_a_relu_keeps_zero_as_its_lower_bound(bounds: Bounds, name: str) -> None:
    low, high = bounds(statistics_of(draw(name)))
    assert low == 0.0
    assert high > 1.0


def test_zeros_do_not_narrow_the_mse_range() -> None:
    """A tensor that is mostly 0 has the bounds of its other values."""
    values = draw("relu")
    sparse = np.concatenate((values, np.zeros(10 * COUNT, np.float32)))
    assert mse_bounds(statistics_of(sparse)) == mse_bounds(statistics_of(values))


@pytest.mark.parametrize("bounds", [mse_bounds, kl_bounds])
@pytest.mark.parametrize("value", [0.0, 3.0, -0.7])
def test_a_constant_is_inside_its_bounds(bounds: Bounds, value: float) -> None:
    low, high = bounds(statistics_of(np.full(50, value, np.float32)))
    constant = float(np.float32(value))
    assert low <= constant <= high
    assert min(constant, 0.0) <= low
    assert high <= max(constant, 0.0)


def test_centres_are_those_of_the_bins() -> None:
    centres = bin_centres(3)
    assert len(centres) == BINS
    assert centres[0] == -8 + 8 / 2048
    assert centres[BINS // 2] == 8 / 2048
    assert set(np.diff(centres)) == {8 / 1024}


@pytest.mark.parametrize(
    ("method", "bounds"), [(RangeMethod.MSE, mse_bounds), (RangeMethod.KL, kl_bounds)]
)
def test_policies_solve_by_these_bounds(method: RangeMethod, bounds: Bounds) -> None:
    item = statistics_of(draw("laplace"))
    solved = solve_ranges({"x": item}, RangePolicy(method=method))
    low, high = bounds(item)
    assert solved.by_name == {"x": Range(low=low, high=high)}


def test_the_ema_policy_is_the_moving_average() -> None:
    item = empty_statistics(1)
    item.add(np.array([[[-1.0, 2.0]], [[-3.0, 6.0]]], np.float32), 1)
    solved = solve_ranges({"x": item}, RangePolicy(method=RangeMethod.EMA)).by_name["x"]
    assert (solved.low, solved.high) == pytest.approx((-1 - 0.01 * 2, 2 + 0.01 * 4))


def test_a_percentile_just_above_a_half_cuts_no_whole_value() -> None:
    """Half of 49.99999999999999 % of 4 values is less than 1, which float rounds to 1."""
    item = statistics_of(np.array([0.0, 0.0, 0.0, 1.0], np.float32))
    assert percentile_range(item, 50.00000000000001) == Range(low=0.0, high=1.0)
