"""Accuracy: what was lost against the float model, held against the budget or a default gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from edgeship.artifact import Manifest
from edgeship.budget import Budget, Judgement, failed, passed, unmeasured
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence, evidence_by_runtime, samples_on_boards
from edgeship.intervals import wilson_interval
from edgeship.vocabulary import Format, Metric, Place

DEFAULT_ACCURACY_DROP: Final = 0.01
"""DESIGN: without an accuracy budget a default gate holds: 1.0 pt of top-1."""
DEFAULT_AGREEMENT: Final = 0.95
"""DESIGN: the default gate on agreement with the float model."""
DEFAULT_COSINE: Final = 0.99
"""DESIGN: the default gate on the mean cosine with the float model's outputs."""
DEFAULT_PERPLEXITY_RISE: Final = 0.05
"""The default gate on perplexity, as a share of the float model's: a choice, DESIGN names none."""
_ROUNDING: Final = 1e-9
"""Fractions of sample counts differ from their decimal limit by less than this in float64."""


def is_match(metrics: Mapping[Metric, float], metric: str) -> bool:
    """Whether metrics pass the default gate: then an artifact's evidence has the rung `matches`."""
    if metric == Metric.TOP1:
        drop = metrics[Metric.REFERENCE_TOP1] - metrics[Metric.TOP1]
        is_kept = drop <= DEFAULT_ACCURACY_DROP + _ROUNDING
        return is_kept and metrics[Metric.AGREEMENT] >= DEFAULT_AGREEMENT - _ROUNDING
    if metric == Metric.AGREEMENT:
        return metrics[Metric.AGREEMENT] >= DEFAULT_AGREEMENT - _ROUNDING
    if metric == Metric.PERPLEXITY:
        return _perplexity_rise(metrics) <= DEFAULT_PERPLEXITY_RISE + _ROUNDING
    return metrics[Metric.COSINE_MEAN] >= DEFAULT_COSINE - _ROUNDING


def judge_evidence(evidence: Evidence, budget: Budget, metric: str) -> Iterator[Judgement]:
    """Hold the accuracy that was measured once against the budget, or the default gate."""
    if budget.accuracy_drop is not None:
        yield _judge_drop(evidence, metric, budget.accuracy_drop)
    elif metric == Metric.TOP1:
        yield _judge_drop(evidence, metric, DEFAULT_ACCURACY_DROP)
        yield _judge_floor(evidence, Metric.AGREEMENT, DEFAULT_AGREEMENT)
    elif metric == Metric.AGREEMENT:
        yield _judge_floor(evidence, Metric.AGREEMENT, DEFAULT_AGREEMENT)
    elif metric == Metric.PERPLEXITY:
        yield _judge_drop(evidence, metric, DEFAULT_PERPLEXITY_RISE)
    else:
        yield _judge_floor(evidence, Metric.COSINE_MEAN, DEFAULT_COSINE)


def judge_accuracy(
    manifest: Manifest, budget: Budget, metric: str, packages: Mapping[str, str]
) -> Iterator[Judgement]:
    """In each runtime by itself: a file may be right in one and wrong in another.

    What a board did with fewer samples than were measured elsewhere is judged beside that, and
    fails only where chance does not explain the loss.
    """
    if not budget.is_accuracy_judged:
        return
    needed = _needed_metrics(budget, metric)
    having = tuple(item for item in manifest.evidence if needed <= item.metrics.keys())
    measured = evidence_by_runtime(having)
    if not measured:
        yield unmeasured("accuracy", "accuracy was not measured", budget)
        return
    for evidence in measured.values():
        yield from judge_evidence(evidence, budget, metric)
    for evidence in samples_on_boards(having):
        yield from _judge_sample(evidence, budget, metric)
    for need in manifest.requires.any_of:
        if packages.get(need.runtime, need.runtime) not in measured:
            detail = f"accuracy in {need.runtime} was not measured: {_remedy(manifest)}"
            yield unmeasured("accuracy", detail, budget)


def _remedy(manifest: Manifest) -> str:
    """Why a runtime has not said anything of accuracy, and what to do about it.

    Engines exist on boards alone: no host can measure in them.
    """
    if manifest.format is not Format.TENSORRT:
        return "it is not on this host (`edgeship doctor` says how to get it)"
    if any(item.place is Place.DEVICE and not item.stand_in for item in manifest.evidence):
        return (
            "what the board reported compares the golden pack alone; "
            "`edgeship test --device NAME` runs evaluation data there"
        )
    return (
        "an engine is built on the board alone; run the kit's build_engine.py there, and bring "
        "its report back with `edgeship evidence import`"
    )


def judge_worst_class(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    """The class that lost most, in each runtime by itself."""
    if budget.class_drop is None:
        return
    measured = evidence_by_runtime(tuple(item for item in manifest.evidence if item.worst_class))
    if not measured:
        yield unmeasured("class_drop", "accuracy by class was not measured", budget)
    for evidence in measured.values():
        worst = evidence.worst_class
        assert worst is not None  # chosen so above
        lost = f"class {worst.name!r} lost {_points(worst.drop)}"
        detail = f"{lost}, limit {_points(budget.class_drop)}"
        counted = f"{detail} ({worst.samples} samples, {evidence.origin})"
        if worst.drop <= budget.class_drop + _ROUNDING:
            yield passed("class_drop", counted)
        else:
            yield failed("class_drop", counted, ExitCode.ACCURACY)


def _needed_metrics(budget: Budget, metric: str) -> set[Metric]:
    """What evidence must hold to be judged by; a smoke test on a board may know only a cosine."""
    if metric == Metric.TOP1:
        counted = {Metric.TOP1, Metric.REFERENCE_TOP1}
        return counted if budget.accuracy_drop is not None else counted | {Metric.AGREEMENT}
    if metric == Metric.PERPLEXITY:
        return {Metric.PERPLEXITY, Metric.REFERENCE_PERPLEXITY}
    return {Metric.AGREEMENT if metric == Metric.AGREEMENT else Metric.COSINE_MEAN}


def _judge_drop(evidence: Evidence, metric: str, limit: float) -> Judgement:
    """Loss against the float model: of top-1, else of what is 1.0 for a perfect copy.

    Of perplexity the share by which it rose: 1.0 pt is a hundredth of the float model's.
    """
    metrics = evidence.metrics
    if metric == Metric.TOP1:
        drop = metrics[Metric.REFERENCE_TOP1] - metrics[Metric.TOP1]
    elif metric == Metric.PERPLEXITY:
        drop = _perplexity_rise(metrics)
    else:
        drop = 1.0 - metrics[Metric.AGREEMENT if metric == Metric.AGREEMENT else Metric.COSINE_MEAN]
    counted = f"{evidence.samples} samples, {evidence.origin}"
    if not drop <= limit + _ROUNDING:  # so that NaN fails
        detail = f"{metric} lost {_points(drop)}, limit {_points(limit)} ({counted})"
        return failed("accuracy", detail, ExitCode.ACCURACY)
    return passed("accuracy", f"{metric} lost {_points(drop)} of {_points(limit)} ({counted})")


def _judge_floor(evidence: Evidence, metric: Metric, floor: float) -> Judgement:
    value = evidence.metrics[metric]
    counted = f"{evidence.samples} samples, {evidence.origin}"
    detail = f"{metric} {value:.4f}, at least {floor} ({counted})"
    if not value >= floor - _ROUNDING:  # so that NaN fails
        return failed(str(metric), detail, ExitCode.ACCURACY)
    return passed(str(metric), detail)


def _judge_sample(evidence: Evidence, budget: Budget, metric: str) -> Iterator[Judgement]:
    """As `judge_evidence`, with the upper end of each share's 95 % interval for the share.

    So chance alone fails one in forty of those that are exactly at their limit, and fewer of
    better ones.
    """
    shares: dict[Metric, float] = {
        key: wilson_interval(round(value * evidence.samples), evidence.samples)[1]
        for key, value in evidence.metrics.items()
        if key in (Metric.TOP1, Metric.AGREEMENT) and 0.0 <= value <= 1.0
    }
    lenient = evidence.with_metrics({**evidence.metrics, **shares})
    for judgement in judge_evidence(lenient, budget, metric):
        if judgement.exit_code is not ExitCode.OK:
            detail = f"{judgement.detail}, at the best end of its 95 % interval"
            yield failed(judgement.quantity, detail, judgement.exit_code)


def _perplexity_rise(metrics: Mapping[Metric, float]) -> float:
    return metrics[Metric.PERPLEXITY] / metrics[Metric.REFERENCE_PERPLEXITY] - 1.0


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} pt"
