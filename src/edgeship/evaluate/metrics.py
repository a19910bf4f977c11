"""Metrics between an artifact's outputs, the float model's and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeship.evaluate.token_signal import token_signal
from edgeship.intervals import wilson_interval
from edgeship.measurements import ClassShare
from edgeship.vocabulary import Metric


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Metrics over `samples` samples; `ci95` is that of `top1`, else of `agreement`.

    `worst_class` is the one that lost most of its top-1, named by its label id.
    """

    metrics: dict[Metric, float]
    samples: int
    ci95: tuple[float, float] | None
    worst_class: ClassShare | None = None


def measure_outputs(
    outputs: np.ndarray, reference: np.ndarray, labels: Sequence[int] | None
) -> Measurement:
    """Compare an artifact with the float model on the same samples.

    Args:
        outputs: float32[N, ...] of the artifact; class scores in the last axis.
        reference: The same of the float model.
        labels: Class of each sample, if known.

    Returns:
        Agreement (share of samples with the same argmax of finite scores), cosine mean and minimum
        over samples, with labels the top-1 accuracy of both, and of sequences (float32[N, T, C])
        the SQNR of all and of single tokens.
    """
    answers, expected = answers_of(outputs), answers_of(reference)
    agreed = int(((answers == expected) & (answers >= 0)).sum())
    cosines = cosine_by_sample(outputs, reference)
    metrics = {
        Metric.AGREEMENT: agreed / len(outputs),
        Metric.COSINE_MEAN: float(cosines.mean()),
        Metric.COSINE_MIN: float(cosines.min()),
        **_token_metrics(outputs, reference),
    }
    successes, worst = agreed, None
    if labels is not None:
        truth = np.asarray(labels)
        successes = int((answers == truth).sum())
        metrics = {
            Metric.TOP1: successes / len(outputs),
            Metric.REFERENCE_TOP1: int((expected == truth).sum()) / len(outputs),
            **metrics,
        }
        worst = max(class_shares(answers, expected, truth), key=lambda share: share.drop)
    return Measurement(
        metrics=metrics,
        samples=len(outputs),
        ci95=wilson_interval(successes, len(outputs)),
        worst_class=worst,
    )


def _token_metrics(outputs: np.ndarray, reference: np.ndarray) -> dict[Metric, float]:
    """None of outputs that are no sequence."""
    signal = None
    if outputs.ndim == 3:
        signal = token_signal(zip(reference, outputs, strict=True))
    if signal is None:
        return {}
    return {
        Metric.SQNR_DB: signal.whole_db,
        Metric.SQNR_DB_TOKEN_MEDIAN: signal.median_db,
        Metric.SQNR_DB_TOKEN_MIN: signal.lowest_db,
    }


def class_shares(answers: np.ndarray, expected: np.ndarray, truth: np.ndarray) -> list[ClassShare]:
    """Top-1 within each class that occurs in `truth`, in the order of label ids.

    Args:
        answers: int64[N] classes that the artifact gave.
        expected: The same of the float model.
        truth: The same of the labels.
    """
    shares = []
    for label in np.unique(truth):
        own = truth == label
        shares.append(
            ClassShare(
                name=str(label),
                samples=int(own.sum()),
                top1=float((answers[own] == label).mean()),
                reference_top1=float((expected[own] == label).mean()),
            )
        )
    return shares


def answers_of(outputs: np.ndarray) -> np.ndarray:
    """int64[N] class with the highest score of each sample; -1 where a score is not finite."""
    scores = outputs.reshape(len(outputs), -1)
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)


def cosine_by_sample(outputs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64[N] cosine of the angle between the flattened outputs of each sample, in -1..1.

    Two zero vectors are equal (1); zero against another, or anything not finite, is 0.
    """
    one = outputs.reshape(len(outputs), -1).astype(np.float64)
    other = reference.reshape(len(reference), -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        products = (one * other).sum(axis=1)
        cosines = np.where(norms > 0, products / np.where(norms > 0, norms, 1), 0.0)
    are_zero = ~one.any(axis=1) & ~other.any(axis=1)
    cosines = np.where(are_zero, 1.0, cosines)
    return np.clip(np.where(np.isfinite(cosines), cosines, 0.0), -1.0, 1.0)
