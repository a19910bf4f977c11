import math

import numpy as np
import pytest

from edgeship.evaluate.token_signal import LIMIT_DB, token_signal

TOKENS, WIDTH = 8, 4


def stack(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, TOKENS, WIDTH))


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    """The definition, by norms."""
    return 20 * math.log10(np.linalg.norm(expected) / np.linalg.norm(expected - found))


@pytest.mark.parametrize("shape", [(TOKENS, WIDTH), (1, TOKENS, WIDTH)])
def test_each_position_is_measured_over_all_samples(shape: tuple[int, ...]) -> None:
    expected = stack(0)
    found = expected + 0.01 * stack(1) * np.arange(1, TOKENS + 1)[:, None]
    pairs = ((x.reshape(shape), y.reshape(shape)) for x, y in zip(expected, found, strict=True))
    signal = token_signal(pairs)

    each = [decibels(expected[:, token], found[:, token]) for token in range(TOKENS)]
    assert signal is not None
    assert signal.position == int(np.argmin(each))
    np.testing.assert_allclose(signal.lowest_db, min(each), rtol=1e-12)
    np.testing.assert_allclose(signal.median_db, np.median(each), rtol=1e-12)
    np.testing.assert_allclose(signal.whole_db, decibels(expected, found), rtol=1e-12)


def test_one_large_token_hides_the_others_from_the_whole_but_not_from_the_median() -> None:
    """int8 with the scale of a token 500 times as large: all others round to 0 or to one step."""
    expected = stack(2)
    expected[:, 0] *= 500
    step = np.abs(expected).max() / 127
    signal = token_signal(zip(expected, np.round(expected / step) * step, strict=True))
    assert signal is not None
    assert signal.whole_db > 35
    assert signal.median_db < 1
    assert signal.position != 0
    assert str(signal).startswith(f"{signal.median_db:.1f} dB of signal to error at the median ")


def test_no_error_and_no_signal_are_the_ends_of_the_scale() -> None:
    expected = stack(3, count=1)
    expected[0, 2] = 0
    exact = token_signal(zip(expected, expected, strict=True))
    assert exact is not None
    assert (exact.whole_db, exact.median_db, exact.lowest_db) == (LIMIT_DB,) * 3
    found = expected.copy()
    found[0, 2, 1] = 1e-3
    noisy = token_signal(zip(expected, found, strict=True))
    assert noisy is not None
    assert (noisy.position, noisy.lowest_db, noisy.median_db) == (2, -LIMIT_DB, LIMIT_DB)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_the_lowest_signal(bad: float) -> None:
    expected = stack(4)
    found = expected + 0.01
    found[1, 5, 0] = bad
    signal = token_signal(zip(expected, found, strict=True))
    assert signal is not None
    assert (signal.position, signal.lowest_db, signal.whole_db) == (5, -LIMIT_DB, -LIMIT_DB)
    assert math.isfinite(signal.median_db)


@pytest.mark.parametrize("shape", [(10,), (1, 10), (1, 1, 10), (2, 8, 4), (1, 2, 8, 4), (1, 0, 4)])
def test_other_outputs_have_no_tokens(shape: tuple[int, ...]) -> None:
    assert token_signal([(np.ones(shape), np.ones(shape))]) is None


def test_no_sample_has_no_signal() -> None:
    assert token_signal([]) is None
