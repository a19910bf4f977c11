import math

import numpy as np
import pytest

from edgeship.evaluate.signal import signal_to_error_db
from edgeship.evaluate.token_signal import LIMIT_DB

X = np.random.default_rng(0).standard_normal((4, 1, 8)).astype(np.float32)


def outputs(values: np.ndarray, name: str = "y") -> list[dict[str, np.ndarray]]:
    return [{name: row} for row in values]


@pytest.mark.parametrize("share", [1e-1, 1e-3])
def test_the_power_of_the_error_is_what_counts(share: float) -> None:
    found = signal_to_error_db(outputs(X), outputs(X * (1 + share)))
    assert found == pytest.approx(-20 * math.log10(share), abs=1e-3)


def test_the_worst_output_counts() -> None:
    expected = [{"a": row, "b": row} for row in X]
    found = [{"a": row, "b": row * np.float32(1.1)} for row in X]
    assert signal_to_error_db(expected, found) == pytest.approx(20, abs=1e-3)


def test_one_large_token_does_not_hide_the_others() -> None:
    sequence = np.ones((2, 1, 9, 4), np.float32)
    sequence[:, :, 0] = 1000
    found = sequence.copy()
    found[:, :, 1:] = 0.5
    assert signal_to_error_db(outputs(sequence), outputs(found)) == pytest.approx(6.02, abs=0.01)


def test_the_ends() -> None:
    assert signal_to_error_db(outputs(X), outputs(X)) == LIMIT_DB
    assert signal_to_error_db(outputs(X), outputs(np.full_like(X, np.nan))) == -LIMIT_DB
    assert signal_to_error_db(outputs(np.zeros_like(X)), outputs(X)) == -LIMIT_DB
