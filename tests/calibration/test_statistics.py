import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.statistics import (
    BINS,
    EMA_MOMENTUM,
    POSITIONS_LIMIT,
    TensorStatistics,
    count_bins,
    empty_statistics,
    exponent_above,
    widen,
)

EXAMPLES = settings(max_examples=60, derandomize=True, deadline=None)
MASK = float(np.float32(-3.4e38))
LARGEST = float(np.nextafter(np.float32(1e30), np.float32(0)))
TINIEST = math.ldexp(1.0, -149)
LANDMARKS = [0.0, -0.0, TINIEST, -TINIEST, 1.0, -1.0, 2.0**-100, -(2.0**-100), 2.0**96, 1e-38, 1e29]

magnitudes = st.builds(
    lambda bits, exponent: float(np.float32(math.ldexp(bits, exponent))),
    st.integers(-(2**24) + 1, 2**24 - 1),
    st.integers(-149, 73),
)
numbers = (
    st.sampled_from(LANDMARKS)
    | magnitudes
    | st.floats(-4, 4, width=32)
    | st.floats(-LARGEST, LARGEST, width=32)
)
odd_numbers = numbers | st.sampled_from([math.nan, math.inf, -math.inf, MASK, -MASK])


def stacks(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """float32[samples, channels, 2], 1..6 samples."""

    def stack(channels: int) -> st.SearchStrategy[list[list[float]]]:
        row = st.lists(elements, min_size=2 * channels, max_size=2 * channels)
        return st.lists(row, min_size=1, max_size=6)

    return st.integers(1, 3).flatmap(
        lambda channels: stack(channels).map(
            lambda rows: np.array(rows, np.float32).reshape(len(rows), channels, 2)
        )
    )


def exact_bin(value: float, exponent: int) -> int:
    return math.floor(Fraction(value) * 1024 / Fraction(2) ** exponent) + 1024


def exact_counts(values: Sequence[float], exponent: int) -> np.ndarray:
    counts = np.zeros(BINS, np.int64)
    for value in values:
        counts[exact_bin(value, exponent)] += 1
    return counts


def exact_exponent(values: Sequence[float]) -> int:
    """By search: the least of -100, -99, ... that lies above every magnitude."""
    top = max((abs(Fraction(value)) for value in values), default=Fraction(0))
    return next(e for e in range(-100, 130) if Fraction(2) ** e > top)


def require_same_counts(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.int64
    assert found.shape == expected.shape == (BINS,)
    worst = int(np.abs(found - expected).argmax())
    assert found[worst] == expected[worst], f"bin {worst}: {found[worst]} for {expected[worst]}"


def require_same(
    found: TensorStatistics, expected: TensorStatistics, *, has_averages: bool = False
) -> None:
    """Equal to the last bit, signs of zeros included; the averages only if asked for."""
    names = ["count", "nonfinite", "sentinels", "samples", "exponent", "minimum", "maximum"]
    names += ["ema_minimum", "ema_maximum"] if has_averages else []
    for name in names:
        one, other = getattr(found, name), getattr(expected, name)
        assert repr(one) == repr(other), name
    require_same_counts(found.counts, expected.counts)
    assert found.channel_absmax.dtype == np.float32
    assert found.channel_absmax.tobytes() == expected.channel_absmax.tobytes(), (
        found.channel_absmax,
        expected.channel_absmax,
    )


def observed(*parts: np.ndarray, channel_axis: int = 1) -> TensorStatistics:
    statistics = empty_statistics(parts[0].shape[channel_axis])
    for part in parts:
        statistics.add(part, channel_axis)
    return statistics


def is_measured(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e30


# Bins


@EXAMPLES
@given(st.lists(numbers, max_size=40), st.integers(0, 12))
def test_bin_of_each_value_is_the_exact_floor(values: list[float], headroom: int) -> None:
    exponent = exact_exponent(values) + headroom
    found = count_bins(np.array(values, np.float32), exponent)
    require_same_counts(found, exact_counts(values, exponent))


@EXAMPLES
@given(st.lists(numbers.map(abs), max_size=40), st.integers(0, 12))
def test_truncation_of_positive_values_is_the_same_floor(
    values: list[float], headroom: int
) -> None:
    exponent = exact_exponent(values) + headroom
    array = np.array([*values, -0.0], np.float32)
    found = count_bins(array, exponent, is_positive=True)
    require_same_counts(found, exact_counts([*values, -0.0], exponent))


@pytest.mark.parametrize("headroom", [0, 1, 10, 11, 12, 50])
def test_every_power_of_two_and_its_neighbours_fall_into_their_exact_bins(headroom: int) -> None:
    powers = np.ldexp(np.float32(1), np.arange(-149, 99)).astype(np.float32)
    around = [np.nextafter(powers, np.float32(0)), powers, np.nextafter(powers, np.float32(np.inf))]
    for column in np.stack(around, axis=1):
        values = [float(value) for value in (*column, *-column)]
        exponent = exact_exponent(values) + headroom
        found = count_bins(np.array(values, np.float32), exponent)
        require_same_counts(found, exact_counts(values, exponent))


@pytest.mark.parametrize("exponent", [-100, -50, 0, 9, 10, 11, 12, 60, 100])
def test_a_subnormal_below_zero_counts_below_zero(exponent: int) -> None:
    values = np.array([-TINIEST, -2 * TINIEST, TINIEST, -0.0, 0.0], np.float32)
    counts = count_bins(values, exponent)
    assert (counts[1023], counts[1024], counts.sum()) == (2, 3, 5)


@pytest.mark.parametrize("is_positive", [False, True])
def test_values_are_counted_across_block_boundaries(is_positive: bool) -> None:
    values = np.random.default_rng(1).standard_normal(3 * (1 << 15) + 7).astype(np.float32)
    values = np.abs(values) if is_positive else values
    expected = np.zeros(BINS, np.int64)
    for value in values.tolist():  # float64 * a power of two is exact
        expected[math.floor(value * 1024 / 8) + 1024] += 1
    require_same_counts(count_bins(values, 3, is_positive=is_positive), expected)


def test_no_values_are_no_counts() -> None:
    require_same_counts(count_bins(np.zeros(0, np.float32), 0), np.zeros(BINS, np.int64))


# R


@EXAMPLES
@given(numbers.map(abs))
def test_r_is_the_least_power_of_two_above(magnitude: float) -> None:
    assert exponent_above(magnitude) == exact_exponent([magnitude])


@pytest.mark.parametrize(
    ("magnitude", "exponent"),
    [(1.0, 1), (np.nextafter(1.0, 0.0), 0), (0.5, 0), (2.0**-101, -100), (0.0, -100)],
)
def test_r_at_its_edges(magnitude: float, exponent: int) -> None:
    assert exponent_above(magnitude) == exponent


@EXAMPLES
@given(st.lists(numbers, min_size=1, max_size=30), st.integers(0, 230))
def test_widening_folds_as_if_counted_wide(values: list[float], steps: int) -> None:
    narrow = exact_exponent(values)
    exponent, counts = widen(narrow, exact_counts(values, narrow), narrow + steps)
    assert exponent == narrow + steps
    require_same_counts(counts, exact_counts(values, exponent))


def test_widening_never_narrows() -> None:
    counts = exact_counts([0.75, -1.0], 1)
    exponent, same = widen(1, counts, -5)
    assert exponent == 1
    require_same_counts(same, counts)


# One pass


@EXAMPLES
@given(stacks(odd_numbers))
def test_a_pass_equals_exact_arithmetic(values: np.ndarray) -> None:
    statistics = observed(values)
    flat = [float(value) for value in values.reshape(-1)]
    kept = [value for value in flat if is_measured(value)]
    assert statistics.count == len(flat)
    assert statistics.nonfinite == sum(math.isnan(v) or v == math.inf for v in flat)
    assert statistics.sentinels == len(flat) - len(kept) - statistics.nonfinite
    assert statistics.minimum == min(kept, default=math.inf)
    assert statistics.maximum == max(kept, default=-math.inf)
    assert statistics.is_empty == (not kept)
    assert statistics.absmax == max(map(abs, kept), default=0.0)
    assert statistics.exponent == exact_exponent(kept)
    require_same_counts(statistics.counts, exact_counts(kept, statistics.exponent))
    for channel, absmax in enumerate(statistics.channel_absmax.tolist()):
        of_channel = values[:, channel].reshape(-1).tolist()
        assert absmax == max((abs(v) for v in of_channel if is_measured(v)), default=0.0), channel


@EXAMPLES
@given(stacks(odd_numbers), st.data())
def test_statistics_do_not_depend_on_batch_size(values: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(values) - 1)))))
    parts = [part for part in np.split(values, cuts) if len(part)]
    require_same(observed(*parts), observed(values), has_averages=True)


@EXAMPLES
@given(stacks(odd_numbers), st.randoms(use_true_random=False))
def test_all_but_the_averages_do_not_depend_on_order(values: np.ndarray, random: Random) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    require_same(observed(values[order]), observed(values))
    require_same(observed(*(values[[index]] for index in order)), observed(values))


@EXAMPLES
@given(stacks(odd_numbers), st.integers(1, 4))
def test_merged_shards_equal_one_pass(values: np.ndarray, shards: int) -> None:
    merged = empty_statistics(values.shape[1])
    for shard in range(shards):
        part = values[shard::shards]
        if len(part):
            merged = merged.merged(observed(part))
    require_same(merged, observed(values))
    assert math.isnan(merged.ema_minimum)
    assert math.isnan(merged.ema_maximum)


def test_merging_leaves_both_shards_as_they_were() -> None:
    values = np.array([[[0.5, -3.0]], [[100.0, 1e-3]]], np.float32)
    one, other = observed(values[:1]), observed(values[1:])
    one.merged(other)
    require_same(one, observed(values[:1]), has_averages=True)
    require_same(other, observed(values[1:]), has_averages=True)


def test_a_tensor_that_wakes_up_late_is_measured_as_finely_as_one_that_wakes_up_early() -> None:
    zeros, small = np.zeros((1, 1, 2), np.float32), np.full((1, 1, 2), 2.0**-10, np.float32)
    late, early = observed(zeros, small), observed(small, zeros)
    assert late.exponent == -9
    require_same(late, early)
    require_same(observed(zeros).merged(observed(small)), early)


def test_the_sign_of_zero_does_not_depend_on_order() -> None:
    values = np.array([0.0, -0.0, -0.0, 0.0], np.float32).reshape(4, 1, 1)
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [2, 1, 0, 3]):
        statistics = observed(*(values[[index]] for index in order))
        require_same(statistics, observed(values), has_averages=True)
        assert repr(statistics.minimum) == repr(statistics.maximum) == "0.0"
        assert not np.signbit(statistics.channel_absmax).any()


def test_all_zeros_are_measured() -> None:
    statistics = observed(np.zeros((3, 2, 5), np.float32))
    assert (statistics.minimum, statistics.maximum, statistics.absmax) == (0.0, 0.0, 0.0)
    assert not statistics.is_empty
    assert statistics.exponent == -100
    assert statistics.counts[1024] == statistics.count == 30
    assert statistics.channel_absmax.tolist() == [0.0, 0.0]


def test_nothing_seen_is_empty() -> None:
    statistics = empty_statistics(3)
    assert statistics.is_empty
    assert statistics.absmax == 0.0
    assert statistics.channel_absmax.shape == (3,)


def test_a_tensor_without_values_stays_empty() -> None:
    statistics = observed(np.zeros((2, 3, 0), np.float32))
    assert statistics.is_empty
    assert (statistics.count, statistics.samples) == (0, 0)


# What is no measurement


@pytest.mark.parametrize(
    ("odd", "nonfinite", "sentinels"),
    [(math.nan, 1, 0), (math.inf, 1, 0), (-math.inf, 0, 1), (MASK, 0, 1), (1.1e30, 0, 1)],
)
def test_odd_values_are_counted_apart(odd: float, nonfinite: int, sentinels: int) -> None:
    values = np.array([[[0.25, odd]], [[-0.5, 1.5]]], np.float32)
    statistics = observed(values)
    assert (statistics.nonfinite, statistics.sentinels) == (nonfinite, sentinels)
    assert (statistics.count, int(statistics.counts.sum())) == (4, 3)
    assert (statistics.minimum, statistics.maximum) == (-0.5, 1.5)
    assert statistics.channel_absmax.tolist() == [1.5]
    assert (statistics.exponent, statistics.samples) == (1, 2)


def test_the_largest_value_that_measures_something_is_just_below_1e30() -> None:
    statistics = observed(np.array([[[LARGEST, -LARGEST]]], np.float32))
    assert (statistics.sentinels, statistics.exponent) == (0, 100)
    require_same_counts(statistics.counts, exact_counts([LARGEST, -LARGEST], 100))


def test_a_mask_alone_leaves_the_tensor_empty() -> None:
    statistics = observed(np.full((2, 1, 3), MASK, np.float32))
    assert statistics.is_empty
    assert (statistics.count, statistics.sentinels, statistics.samples) == (6, 6, 0)


def test_a_mask_in_one_channel_leaves_the_other_measured() -> None:
    values = np.array([[[MASK, MASK], [0.5, -2.0]]], np.float32)
    statistics = observed(values)
    assert statistics.channel_absmax.tolist() == [0.0, 2.0]
    assert (statistics.minimum, statistics.maximum, statistics.sentinels) == (-2.0, 0.5, 2)


def test_clean_samples_after_odd_ones_are_counted_whole() -> None:
    odd, clean = np.array([[[math.nan, 1.0]]], np.float32), np.ones((1, 1, 2), np.float32)
    statistics = observed(odd, clean)
    assert (statistics.counts.sum(), statistics.nonfinite, statistics.count) == (3, 1, 4)


def test_values_are_not_modified() -> None:
    values = np.array([[[math.nan, MASK, 1.0, -math.inf]]], np.float32)
    before = values.tobytes()
    observed(values)
    assert values.tobytes() == before


# Averages


@EXAMPLES
@given(stacks(numbers))
def test_averages_follow_the_samples_in_their_order(values: np.ndarray) -> None:
    low, high = float(values[0].min()), float(values[0].max())
    for sample in values[1:]:
        low += EMA_MOMENTUM * (float(sample.min()) - low)
        high += EMA_MOMENTUM * (float(sample.max()) - high)
    statistics = observed(values)
    assert (statistics.ema_minimum, statistics.ema_maximum) == (low, high)
    assert statistics.samples == len(values)


def test_a_sample_of_sentinels_does_not_enter_the_averages() -> None:
    values = np.array([[[MASK, MASK]], [[-1.0, 3.0]], [[math.nan, MASK]], [[0.0, 5.0]]], np.float32)
    statistics = observed(values)
    assert statistics.samples == 2
    assert statistics.ema_minimum == -1.0 + 0.01 * (0.0 - -1.0)
    assert statistics.ema_maximum == 3.0 + 0.01 * (5.0 - 3.0)


# Positions


def observed_tokens(*parts: np.ndarray) -> TensorStatistics:
    """Of float32[samples, T, C]."""
    _, tokens, channels = parts[0].shape
    statistics = empty_statistics(channels, tokens)
    for part in parts:
        statistics.add(part, 2, 1)
    return statistics


@EXAMPLES
@given(stacks(odd_numbers), st.randoms(use_true_random=False))
def test_each_position_has_its_largest_magnitude_whatever_the_order(
    values: np.ndarray, random: Random
) -> None:
    expected = [
        max((abs(v) for v in values[:, token].reshape(-1).tolist() if is_measured(v)), default=0.0)
        for token in range(values.shape[1])
    ]
    order = list(range(len(values)))
    random.shuffle(order)
    shards = [observed_tokens(values[[index]]) for index in order]
    merged = shards[0]
    for shard in shards[1:]:
        merged = merged.merged(shard)
    apart = observed_tokens(*(values[[index]] for index in order))
    for statistics in (observed_tokens(values), apart, merged):
        assert statistics.position_absmax.dtype == np.float32
        assert statistics.position_absmax.tolist() == expected
        assert not np.signbit(statistics.position_absmax).any()


def test_positions_are_those_of_their_axis_and_change_nothing_else() -> None:
    values = np.random.default_rng(9).standard_normal((3, 1, 5, 7)).astype(np.float32)
    statistics = empty_statistics(7, 5)
    statistics.add(values, 3, 2)
    assert statistics.position_absmax.tolist() == np.abs(values).max(axis=(0, 1, 3)).tolist()
    require_same(statistics, observed(values, channel_axis=3), has_averages=True)


def test_a_tensor_without_positions_or_with_too_many_has_none() -> None:
    values = np.ones((1, POSITIONS_LIMIT + 1, 2), np.float32)
    assert observed_tokens(values).position_absmax.shape == (0,)
    assert observed_tokens(values[:, 1:]).position_absmax.shape == (POSITIONS_LIMIT,)
    assert observed(values).position_absmax.shape == (0,)


# Ranks and channel axes


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 5), 1),
        ((2, 1, 7), 2),
        ((2, 4, 7), 1),
        ((3, 1, 4, 6), 3),
        ((2, 1, 3, 4, 5), 2),
        ((2, 1, 3, 4, 5), 4),
        ((2, 1, 3, 2, 2, 2), 2),
    ],
)
def test_channel_absmax_is_that_of_its_axis(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    statistics = observed(values, channel_axis=axis)
    expected = [float(np.abs(np.take(values, c, axis)).max()) for c in range(shape[axis])]
    assert statistics.channel_absmax.tolist() == expected
    flat = values.reshape(-1).tolist()
    require_same_counts(statistics.counts, exact_counts(flat, statistics.exponent))


def test_the_memory_layout_of_a_tensor_does_not_matter() -> None:
    values = np.random.default_rng(8).standard_normal((3, 4, 5, 6)).astype(np.float32)
    turned = np.asfortranarray(values)
    require_same(observed(turned), observed(values), has_averages=True)
