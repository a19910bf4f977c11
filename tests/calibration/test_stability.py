import numpy as np
import pytest

from edgeship.calibration.observe import Statistics
from edgeship.calibration.stability import (
    OUTLIER_SHARE,
    TOLERANCE,
    find_outliers,
    measure_stability,
    sample_widths,
)
from edgeship.calibration.statistics import (
    EXTREMES_LIMIT,
    TensorStatistics,
    empty_statistics,
)

MASK = float(np.float32(-3.4e38))


def observed(*stacks: np.ndarray) -> TensorStatistics:
    """Of stacks float32[samples, values]."""
    statistics = empty_statistics(1)
    for stack in stacks:
        statistics.add(stack[:, np.newaxis].astype(np.float32), 1)
    return statistics


def with_widths(widths: np.ndarray) -> TensorStatistics:
    """A tensor whose samples span 0..width."""
    return observed(np.stack((np.zeros(len(widths)), widths), axis=1))


def lognormal(count: int, *, spread: float = 0.3, seed: int = 2) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, spread, count))


# What the table keeps of each sample


def test_extremes_are_those_of_each_sample_in_order() -> None:
    values = np.random.default_rng(0).standard_normal((7, 50)).astype(np.float32)
    found = observed(values).sample_extremes
    assert found.dtype == np.float32
    assert found.tolist() == np.stack((values.min(axis=1), values.max(axis=1)), axis=1).tolist()


def test_extremes_do_not_depend_on_where_a_stack_ends() -> None:
    values = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    values[3] = np.array([0.0, -0.0, 0.0, -0.0, 0.0])
    whole = observed(values).sample_extremes.tobytes()
    assert observed(values[:4], values[4:5], values[5:]).sample_extremes.tobytes() == whole


def test_memory_is_bounded_by_the_first_1024_samples() -> None:
    values = np.arange(4.0 * EXTREMES_LIMIT).reshape(-1, 2)
    found = observed(values[:1000], values[1000:]).sample_extremes
    assert found.tolist() == values[:EXTREMES_LIMIT].tolist()


def test_what_is_no_measurement_has_no_extremes() -> None:
    values = np.array([[MASK, 2.0], [MASK, MASK], [np.nan, 1.0]])
    found = observed(values).sample_extremes
    assert found.tolist() == [[2.0, 2.0], [np.inf, -np.inf], [1.0, 1.0]]


def test_merging_drops_them_as_it_drops_the_averages() -> None:
    one, other = observed(np.ones((2, 3))), observed(np.zeros((2, 3)))
    assert one.merged(other).sample_extremes.shape == (0, 2)


# Stability


def test_width_spans_zero() -> None:
    item = observed(np.array([[1.0, 3.0], [-2.0, -1.0], [-1.0, 4.0]]))
    assert sample_widths({"x": item})["x"].tolist() == [3.0, 2.0, 5.0]


def test_variation_is_the_bootstrap_interval_of_the_mean_width() -> None:
    """Against the normal interval of a mean, which it approaches: within a tenth at n = 400."""
    widths = lognormal(400)
    found = measure_stability({"x": with_widths(widths)})
    assert found is not None
    expected = 1.96 * widths.std() / np.sqrt(400) / widths.mean()
    assert found.variation == pytest.approx(expected, rel=0.1)
    assert found.tensor == "x"
    assert found.samples == 400


def test_the_least_stable_tensor_counts() -> None:
    widths = lognormal(64)
    statistics = {"calm": with_widths(1 + widths / 100), "wild": with_widths(widths**2)}
    found = measure_stability(statistics)
    assert found is not None
    assert found.tensor == "wild"


@pytest.mark.parametrize("count", [24, 50, 100, 400, 1000])
def test_how_many_would_do_hardly_depends_on_how_many_there_are(count: int) -> None:
    """(1.96 * 0.307 / 0.05)**2 = 145 for a lognormal of this spread; 24 know their own to 30 %."""
    found = measure_stability({"x": with_widths(lognormal(count))})
    assert found is not None
    assert 70 <= found.enough <= 260


def test_enough_samples_hold_the_tolerance() -> None:
    few = measure_stability({"x": with_widths(lognormal(40))})
    assert few is not None
    assert few.variation > TOLERANCE
    many = measure_stability({"x": with_widths(lognormal(2 * few.enough))})
    assert many is not None
    assert many.variation < TOLERANCE


def test_it_is_the_same_each_time_and_in_any_order_of_tensors() -> None:
    one, other = with_widths(lognormal(30)), with_widths(lognormal(30, seed=5))
    found = measure_stability({"a": one, "b": other})
    assert found == measure_stability({"b": other, "a": one})


def test_a_power_of_two_changes_nothing() -> None:
    plain = measure_stability({"x": with_widths(lognormal(30))})
    scaled = measure_stability({"x": with_widths(lognormal(30) * 2.0**20)})
    assert plain == scaled


@pytest.mark.parametrize(
    "statistics",
    [
        {},
        {"one": with_widths(np.ones(1))},
        {"dead": with_widths(np.zeros(9))},
        {"mask": observed(np.full((9, 2), MASK))},
        {"merged": with_widths(np.ones(4)).merged(with_widths(np.ones(4)))},
    ],
    ids=lambda value: next(iter(value), "none"),
)
def test_nothing_is_said_where_nothing_varies_between_samples(statistics: Statistics) -> None:
    assert measure_stability(statistics) is None
    assert find_outliers(statistics) == []


def test_equal_samples_are_perfectly_stable() -> None:
    found = measure_stability({"x": with_widths(np.full(20, 3.0))})
    assert found is not None
    assert found.variation == 0
    assert found.enough == 0


def test_enough_is_rounded_up_to_two_digits() -> None:
    found = measure_stability({"x": with_widths(lognormal(100, spread=0.8))})
    assert found is not None
    exact = found.samples * (found.variation / TOLERANCE) ** 2
    assert found.enough >= exact
    assert int(str(found.enough)[2:] or 0) == 0, found.enough
    assert found.enough - exact < 100


# Outliers


def test_a_sample_that_more_than_doubles_a_range_is_found() -> None:
    widths = np.ones(20)
    widths[13] = 3.0
    (found,) = find_outliers({"x": with_widths(widths), "y": with_widths(np.ones(20))})
    assert (found.tensor, found.index) == ("x", 13)
    assert found.share == pytest.approx(2 / 3)


def test_a_sample_may_reach_out_at_both_ends() -> None:
    values = np.tile([-1.0, 1.0], (20, 1))
    values[4] = [-2.0, 2.5]
    (found,) = find_outliers({"x": observed(values)})
    assert found.index == 4
    assert found.share == pytest.approx(2.5 / 4.5)


def test_two_samples_that_reach_as_far_are_no_outliers() -> None:
    widths = np.ones(20)
    widths[[3, 4]] = 100.0
    assert find_outliers({"x": with_widths(widths)}) == []


def test_the_limit_is_half_of_the_range() -> None:
    for wide, count in ((2.01, 1), (1.99, 0)):
        widths = np.ones(20)
        widths[0] = wide
        assert len(find_outliers({"x": with_widths(widths)})) == count
    assert OUTLIER_SHARE == 0.5


def test_seven_samples_have_no_outliers() -> None:
    assert find_outliers({"x": with_widths(np.array([1.0] * 6 + [50.0]))}) == []


def test_the_worst_outlier_comes_first() -> None:
    def one_of(width: float) -> TensorStatistics:
        return with_widths(np.array([1.0] * 9 + [width]))

    found = find_outliers({"a": one_of(3.0), "b": one_of(9.0), "c": one_of(3.0)})
    assert [item.tensor for item in found] == ["b", "a", "c"]
