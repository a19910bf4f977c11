import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.evaluate.metrics import answers_of, cosine_by_sample, measure_outputs
from edgeship.intervals import wilson_interval
from edgeship.vocabulary import Metric

EXAMPLES = settings(max_examples=60, derandomize=True, deadline=None)
NAN, INF = math.nan, math.inf


def floats(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


REFERENCE = floats([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1])
OUTPUTS = floats([2, 0, 0], [0, 0, 3], [0, 0, 1], [3, 0, 4])


# Answers


def test_the_highest_score_is_the_answer() -> None:
    assert answers_of(floats([0, 5, -1], [-3, -2, -1], [7, 7, 7])).tolist() == [1, 2, 0]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_scores_that_are_not_finite_are_no_answer(bad: float, position: int) -> None:
    row = [1.0, 2.0, 3.0]
    row[position] = bad
    assert answers_of(floats(row, [1, 2, 3])).tolist() == [-1, 2]


def test_sequences_have_the_signal_of_their_tokens_and_classes_none() -> None:
    reference = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    outputs = reference.copy()
    outputs[:, 3] *= 1.1  # an error of a tenth: 20 dB
    metrics = measure_outputs(outputs, reference, None).metrics
    assert metrics[Metric.SQNR_DB_TOKEN_MIN] == pytest.approx(20, abs=0.01)
    assert metrics[Metric.SQNR_DB_TOKEN_MEDIAN] == 200
    assert 20 < metrics[Metric.SQNR_DB] < 40
    assert Metric.SQNR_DB not in measure_outputs(OUTPUTS, REFERENCE, None).metrics


# Cosine


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        ([3, 4], [3, 4], 1.0),
        ([3, 4], [30, 40], 1.0),
        ([3, 4], [-3, -4], -1.0),
        ([3, 4], [4, -3], 0.0),
        ([1, 0], [3, 4], 0.6),
        ([5, 12], [3, 4], 63 / 65),
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [3, 4], 0.0),
        ([3, 4], [0, 0], 0.0),
        ([-0.0, 0], [0, 0], 1.0),
        ([NAN, 1], [NAN, 1], 0.0),
        ([NAN, NAN], [0, 0], 0.0),
        ([INF, 1], [INF, 1], 0.0),
        ([0, 0], [INF, 0], 0.0),
        ([3e38, 3e38], [3e38, 3e38], 1.0),
        ([1e-45, 0], [1e-45, 0], 1.0),
        ([1e-45, 0], [3e38, 0], 1.0),
    ],
)
def test_cosine_by_hand(one: list[float], other: list[float], cosine: float) -> None:
    found = cosine_by_sample(floats(one, [1, 2]), floats(other, [1, 2]))
    assert found.dtype == np.float64
    assert found == pytest.approx([cosine, 1.0], abs=1e-12)


@EXAMPLES
@given(
    st.integers(1, 6).flatmap(
        lambda size: st.tuples(
            *[st.lists(st.floats(-1e6, 1e6, width=32), min_size=size, max_size=size)] * 2
        )
    )
)
def test_cosine_follows_its_definition(pair: tuple[list[float], list[float]]) -> None:
    one, other = pair
    found = cosine_by_sample(floats(one), floats(other)).item()
    lengths = math.hypot(*one) * math.hypot(*other)
    if lengths:
        expected = math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths
        assert found == pytest.approx(expected, abs=1e-9)
    else:
        assert found == float(not any(one) and not any(other))
    assert -1.0 <= found <= 1.0


@EXAMPLES
@given(st.lists(st.floats(width=32), min_size=2, max_size=2), st.floats(width=32))
def test_cosine_is_always_a_number(one: list[float], value: float) -> None:
    (found,) = cosine_by_sample(floats(one), floats([value, 1.0]))
    assert -1.0 <= found <= 1.0


# All together


def test_metrics_by_hand_with_labels() -> None:
    found = measure_outputs(OUTPUTS, REFERENCE, [0, 1, 2, 0])
    # answers: artifact 0 2 2 2, float 0 1 2 2; cosines 1, 0, 1, 0.8
    assert found.metrics == {
        Metric.TOP1: 0.5,
        Metric.REFERENCE_TOP1: 0.75,
        Metric.AGREEMENT: 0.75,
        Metric.COSINE_MEAN: pytest.approx(0.7),
        Metric.COSINE_MIN: 0.0,
    }
    assert found.samples == 4
    assert found.ci95 == wilson_interval(2, 4)


def test_metrics_by_hand_without_labels() -> None:
    found = measure_outputs(OUTPUTS, REFERENCE, None)
    assert found.metrics == {
        Metric.AGREEMENT: 0.75,
        Metric.COSINE_MEAN: pytest.approx(0.7),
        Metric.COSINE_MIN: 0.0,
    }
    assert found.ci95 == wilson_interval(3, 4)


def test_nan_is_never_agreement() -> None:
    nothing = np.full((4, 3), NAN, np.float32)
    for reference in (REFERENCE, nothing):
        found = measure_outputs(nothing, reference, [0, 1, 2, 2])
        assert found.metrics[Metric.AGREEMENT] == 0.0
        assert found.metrics[Metric.TOP1] == 0.0
        assert found.metrics[Metric.COSINE_MEAN] == 0.0
        assert found.metrics[Metric.COSINE_MIN] == 0.0
    without = measure_outputs(nothing, nothing, None)
    assert without.metrics[Metric.AGREEMENT] == 0.0
    assert without.ci95 == wilson_interval(0, 4)


def test_one_sample_that_is_nan_costs_one_sample() -> None:
    outputs = REFERENCE.copy()
    outputs[1] = NAN
    found = measure_outputs(outputs, REFERENCE, [0, 1, 2, 2])
    assert found.metrics[Metric.AGREEMENT] == found.metrics[Metric.TOP1] == 0.75
    assert found.metrics[Metric.COSINE_MEAN] == 0.75
    assert found.metrics[Metric.COSINE_MIN] == 0.0


def test_an_artifact_that_equals_the_model_agrees_wholly() -> None:
    outputs = np.random.default_rng(1).standard_normal((50, 10)).astype(np.float32)
    metrics = measure_outputs(outputs, outputs.copy(), None).metrics
    assert metrics[Metric.AGREEMENT] == 1.0
    assert metrics[Metric.COSINE_MIN] == pytest.approx(1.0, abs=1e-12)
    assert max(metrics.values()) <= 1.0


def test_outputs_of_higher_rank_are_compared_whole() -> None:
    one = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = measure_outputs(one, one * 2, None).metrics
    assert found[Metric.AGREEMENT] == 1.0
    assert found[Metric.COSINE_MIN] == pytest.approx(1.0, abs=1e-12)


def test_metrics_are_plain_floats() -> None:
    found = measure_outputs(OUTPUTS, REFERENCE, [0, 1, 2, 0])
    assert {type(value) for value in found.metrics.values()} == {float}


def test_the_worst_class_is_the_one_that_lost_most() -> None:
    """Class 0: 2 of 2 kept; class 1: 2 of 3 in float, 1 of 3 in the artifact."""
    labels = [0, 0, 1, 1, 1]
    reference = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]]
    outputs = np.eye(2, dtype=np.float32)[[0, 0, 1, 0, 0]]
    worst = measure_outputs(outputs, reference, labels).worst_class
    assert worst is not None
    assert (worst.name, worst.samples) == ("1", 3)
    assert worst.drop == pytest.approx(1 / 3)
    assert worst.top1 == pytest.approx(1 / 3)


def test_without_labels_there_is_no_worst_class() -> None:
    outputs = np.eye(2, dtype=np.float32)
    assert measure_outputs(outputs, outputs, None).worst_class is None
