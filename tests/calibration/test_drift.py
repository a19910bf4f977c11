import numpy as np
import pytest

from edgeship.calibration.drift import audit_drift, measure_drift
from edgeship.calibration.finding import Severity
from edgeship.calibration.moments import moments_of, share_beyond
from edgeship.calibration.statistics import TensorStatistics, empty_statistics


def observed(values: np.ndarray) -> TensorStatistics:
    statistics = empty_statistics(1)
    statistics.add(values.reshape(1, 1, -1).astype(np.float32), 1)
    return statistics


def normal(*, mean: float = 0.0, std: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, std, 50_000)


BASE = observed(normal())


# Moments


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (5.0, 0.5), (-300.0, 20.0), (0.0, 1e-6)])
def test_moments_are_numpys_to_within_a_bin(mean: float, std: float) -> None:
    values = normal(mean=mean, std=std).astype(np.float32)
    item = observed(values)
    found = moments_of(item)
    width = 2.0 ** (item.exponent - 10)
    # the mean of the centres is off by half a bin at most; the deviation, by no more than that
    assert abs(found.mean - float(values.mean(dtype=np.float64))) <= width / 2
    assert abs(found.std - float(values.std(dtype=np.float64))) <= width / 2


def test_nothing_has_moments_of_zero() -> None:
    found = moments_of(empty_statistics(3))
    assert (found.mean, found.std) == (0.0, 0.0)
    assert share_beyond(empty_statistics(3), -1.0, 1.0) == 0.0


def test_share_beyond_counts_values_outside_to_within_a_bin() -> None:
    values = normal().astype(np.float32)
    item = observed(values)
    width = 2.0 ** (item.exponent - 10)
    inner = float(((values < -1 - width) | (values > 2 + width)).mean())
    outer = float(((values < -1) | (values > 2)).mean())
    assert inner <= share_beyond(item, -1.0, 2.0) <= outer
    assert share_beyond(item, item.minimum, item.maximum) == 0.0


# Drift


def test_other_samples_of_the_same_data_do_not_drift() -> None:
    drift = measure_drift(BASE, observed(normal(seed=1)))
    assert drift is not None
    assert drift.score < 0.2
    assert audit_drift({"x": BASE}, {"x": observed(normal(seed=1))}, frozenset({"x"})) == []


@pytest.mark.parametrize(
    ("mean", "std", "drifts"),
    [
        (0.2, 1.0, False),
        (0.3, 1.0, True),
        (-0.3, 1.0, True),
        (0.0, 1.2, False),
        (0.0, 1.3, True),
        (0.0, 0.85, False),
        (0.0, 0.75, True),
    ],
)
def test_limits_are_a_quarter_of_a_deviation_and_of_the_spread(
    mean: float, std: float, drifts: bool
) -> None:
    drift = measure_drift(BASE, observed(normal(mean=mean, std=std, seed=1)))
    assert drift is not None
    assert drift.shift == pytest.approx(mean, abs=0.02)
    assert drift.spread == pytest.approx(std, rel=0.02)
    assert (drift.score > 1) is drifts


def test_values_beyond_the_range_are_drift() -> None:
    values = normal(seed=1)
    values[:600] = 4.9
    drift = measure_drift(BASE, observed(values))
    assert drift is not None
    assert drift.beyond == pytest.approx(0.012, abs=1e-4)
    assert drift.score > 1


def test_data_that_became_constant_is_drift() -> None:
    drift = measure_drift(BASE, observed(np.zeros(100)))
    assert drift is not None
    assert drift.score > 1
    assert "spread x 0.00" in str(drift)


def test_a_constant_cannot_drift() -> None:
    assert measure_drift(observed(np.ones(9)), BASE) is None
    assert measure_drift(empty_statistics(1), BASE) is None
    assert measure_drift(BASE, empty_statistics(1)) is None


def test_the_input_is_blamed_before_what_follows_from_it() -> None:
    calibration = {"image": BASE, "relu": BASE, "logits": BASE}
    evaluation = {
        "image": observed(normal(mean=0.5)),
        "relu": observed(normal(mean=4.0)),
        "logits": observed(normal(seed=1)),
    }
    (finding,) = audit_drift(calibration, evaluation, frozenset({"image"}))
    assert finding.severity is Severity.WARN
    assert finding.problem.where == "calibration: tensor image"
    assert finding.problem.what.endswith("in 2 of 3 tensors")
    assert "mean shifted by +0.50" in str(finding.problem.found)


def test_else_the_worst_tensor_is_named_with_its_module() -> None:
    calibration = {"image": BASE, "a": BASE, "b": BASE}
    evaluation = {
        "image": BASE,
        "a": observed(normal(mean=1.0)),
        "b": observed(normal(mean=2.0)),
    }
    (finding,) = audit_drift(calibration, evaluation, frozenset({"image"}), {"b": "layer1.0"})
    assert finding.problem.where == "calibration: tensor b in layer1.0"


def test_tensors_of_one_side_alone_are_passed_over() -> None:
    assert audit_drift({"a": BASE}, {"b": observed(normal(mean=9.0))}, frozenset()) == []


def test_values_that_equal_the_extremes_are_not_beyond_them() -> None:
    """A count of tokens is always the same few integers, which lie on the bins' edges."""
    item = empty_statistics(1)
    item.add(np.array([[128.0], [128.0], [115.0]], np.float32), 1)
    assert share_beyond(item, 115.0, 128.0) == 0.0
