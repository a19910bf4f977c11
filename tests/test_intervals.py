import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.intervals import wilson_interval

EXAMPLES = settings(max_examples=200, derandomize=True, deadline=None)
shares = st.integers(1, 100_000).flatmap(
    lambda count: st.tuples(st.integers(0, count), st.just(count))
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (8, 10, 0.490, 0.943),
        (0, 10, 0.0, 0.278),
        (10, 10, 0.722, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17, 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals_are_met(successes: int, count: int, low: float, high: float) -> None:
    digits = 3 if count == 10 else 4
    found = wilson_interval(successes, count)
    assert tuple(round(end, digits) for end in found) == (low, high)


@EXAMPLES
@given(shares)
def test_the_share_lies_within(share: tuple[int, int]) -> None:
    successes, count = share
    low, high = wilson_interval(successes, count)
    assert 0.0 <= low <= successes / count <= high <= 1.0
    assert low < high


@EXAMPLES
@given(shares)
def test_the_ends_solve_the_score_equation(share: tuple[int, int]) -> None:
    """At each end p, |share - p| is 1.96 standard errors of p: the definition of the interval."""
    successes, count = share
    for end in wilson_interval(successes, count):
        p = Fraction(end)
        apart = (Fraction(successes, count) - p) ** 2
        expected = Fraction(1.959963984540054) ** 2 * p * (1 - p) / count
        # both vanish at 0 and 1; one rounding of an end of size e moves them by about e * 2**-52
        assert math.isclose(apart, expected, rel_tol=1e-7, abs_tol=1e-15)


@EXAMPLES
@given(shares)
def test_failures_mirror_successes(share: tuple[int, int]) -> None:
    successes, count = share
    low, high = wilson_interval(successes, count)
    mirrored = wilson_interval(count - successes, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-14)


def test_more_samples_narrow_the_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (2, 10, 100, 9999))]
    assert widths == sorted(widths, reverse=True)
