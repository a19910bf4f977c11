"""Budget: the limits of a target; judging an artifact's evidence against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edgeship.artifact import Manifest
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence, evidence_by_runtime
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Metric, Place, Verdict

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


_SAME_NAMES: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one target; None means no limit.

    Attributes:
        size_bytes: Of the files with role `model`.
        accuracy_drop: Fraction of the metric that may be lost against the float model; None leaves
            the default gate in force.
        class_drop: Fraction of its top-1 that the worst class may lose.
        is_accuracy_judged: False for `accuracy_drop = "off"`.
        latency_p95_ms: Of one inference.
        memory_bytes: Peak resident memory less that of the imported runtime.
        evidence: The place that latency and memory must come from.
    """

    size_bytes: int | None = None
    accuracy_drop: float | None = None
    class_drop: float | None = None
    is_accuracy_judged: bool = True
    latency_p95_ms: float | None = None
    memory_bytes: int | None = None
    evidence: Place | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the budget says of one quantity of one artifact; `detail` is a clause for people."""

    quantity: str
    verdict: Verdict
    detail: str
    exit_code: ExitCode = ExitCode.OK

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "quantity": self.quantity,
            "verdict": str(self.verdict),
            "detail": self.detail,
            "exit_code": int(self.exit_code),
        }


def judge_artifact(
    manifest: Manifest,
    budget: Budget,
    *,
    metric: str,
    packages: Mapping[str, str] = _SAME_NAMES,
    is_companion: bool = False,
) -> list[Judgement]:
    """Hold one artifact against a budget, by what was measured in each of its runtimes.

    Args:
        manifest: With the evidence to judge by.
        budget: The target's.
        metric: The project's evaluation metric: top1, agreement or cosine.
        packages: What evidence calls the runtimes of `requires.any_of`, by their names there,
            where it is something else.
        is_companion: True for the fp32 file that is built beside an int8 one only to compare with:
            the limits on what ships (size, latency, memory) are then not its own.
    """
    judgements = list(_judge_accuracy(manifest, budget, metric, packages))
    judgements += _judge_worst_class(manifest, budget)
    if not is_companion:
        judgements += _judge_size(manifest, budget)
        judgements += _judge_unmeasured(budget)
    return judgements


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


def worst_verdict(judgements: Iterable[Judgement]) -> Verdict:
    """Fail before unmeasured before pass; pass if there is nothing to judge."""
    verdicts = {judgement.verdict for judgement in judgements}
    order = (Verdict.FAIL, Verdict.UNMEASURED)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)


def worst_exit_code(codes: Iterable[ExitCode]) -> ExitCode:
    """The lowest code that is a failure, else OK."""
    return min((code for code in codes if code is not ExitCode.OK), default=ExitCode.OK)


def _judge_size(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    if budget.size_bytes is None:
        return
    over = manifest.size_bytes - budget.size_bytes
    limit, found = text_from_bytes(budget.size_bytes), text_from_bytes(manifest.size_bytes)
    if over > 0:
        detail = f"size {found} is {text_from_bytes(over)} over the limit of {limit}"
        yield _fail("size", detail, ExitCode.BUDGET)
    else:
        yield _pass("size", f"size {found} of {limit}")


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


def _judge_accuracy(
    manifest: Manifest, budget: Budget, metric: str, packages: Mapping[str, str]
) -> Iterator[Judgement]:
    """In each runtime by itself: a file may be right in one and wrong in another."""
    if not budget.is_accuracy_judged:
        return
    needed = _accuracy_metrics(budget, metric)
    measured = evidence_by_runtime(
        tuple(item for item in manifest.evidence if needed <= item.metrics.keys())
    )
    if not measured:
        yield _unmeasured("accuracy", "accuracy was not measured", budget)
        return
    for evidence in measured.values():
        yield from judge_evidence(evidence, budget, metric)
    for need in manifest.requires.any_of:
        if packages.get(need.runtime, need.runtime) not in measured:
            detail = (
                f"accuracy in {need.runtime} was not measured: it is not on this host "
                "(`edgeship doctor` says how to get it)"
            )
            yield _unmeasured("accuracy", detail, budget)


def _accuracy_metrics(budget: Budget, metric: str) -> set[Metric]:
    """What evidence must hold to be judged by; a smoke test on a board may know only a cosine."""
    if metric == Metric.TOP1:
        counted = {Metric.TOP1, Metric.REFERENCE_TOP1}
        return counted if budget.accuracy_drop is not None else counted | {Metric.AGREEMENT}
    if metric == Metric.PERPLEXITY:
        return {Metric.PERPLEXITY, Metric.REFERENCE_PERPLEXITY}
    return {Metric.AGREEMENT if metric == Metric.AGREEMENT else Metric.COSINE_MEAN}


def _judge_worst_class(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    if budget.class_drop is None:
        return
    measured = evidence_by_runtime(tuple(item for item in manifest.evidence if item.worst_class))
    if not measured:
        yield _unmeasured("class_drop", "accuracy by class was not measured", budget)
    for evidence in measured.values():
        worst = evidence.worst_class
        assert worst is not None  # chosen so above
        lost = f"class {worst.name!r} lost {_points(worst.drop)}"
        detail = f"{lost}, limit {_points(budget.class_drop)}"
        counted = f"{detail} ({worst.samples} samples, {_where(evidence)})"
        if worst.drop <= budget.class_drop + _ROUNDING:
            yield _pass("class_drop", counted)
        else:
            yield _fail("class_drop", counted, ExitCode.ACCURACY)


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
    counted = f"{evidence.samples} samples, {_where(evidence)}"
    if not drop <= limit + _ROUNDING:  # so that NaN fails
        detail = f"{metric} lost {_points(drop)}, limit {_points(limit)} ({counted})"
        return _fail("accuracy", detail, ExitCode.ACCURACY)
    return _pass("accuracy", f"{metric} lost {_points(drop)} of {_points(limit)} ({counted})")


def _perplexity_rise(metrics: Mapping[Metric, float]) -> float:
    return metrics[Metric.PERPLEXITY] / metrics[Metric.REFERENCE_PERPLEXITY] - 1.0


def _judge_floor(evidence: Evidence, metric: Metric, floor: float) -> Judgement:
    value = evidence.metrics[metric]
    counted = f"{evidence.samples} samples, {_where(evidence)}"
    detail = f"{metric} {value:.4f}, at least {floor} ({counted})"
    if not value >= floor - _ROUNDING:  # so that NaN fails
        return _fail(str(metric), detail, ExitCode.ACCURACY)
    return _pass(str(metric), detail)


def _judge_unmeasured(budget: Budget) -> Iterator[Judgement]:
    """Limits on what only a run on a board can measure."""
    for quantity, limit in (
        ("latency_p95", None if budget.latency_p95_ms is None else f"{budget.latency_p95_ms:g} ms"),
        ("memory", None if budget.memory_bytes is None else text_from_bytes(budget.memory_bytes)),
    ):
        if limit is not None:
            detail = f"{quantity} (limit {limit}) was not measured"
            yield _unmeasured(quantity, detail, budget)


def _pass(quantity: str, detail: str) -> Judgement:
    return Judgement(quantity=quantity, verdict=Verdict.PASS, detail=detail)


def _fail(quantity: str, detail: str, exit_code: ExitCode) -> Judgement:
    return Judgement(quantity=quantity, verdict=Verdict.FAIL, detail=detail, exit_code=exit_code)


def _unmeasured(quantity: str, detail: str, budget: Budget) -> Judgement:
    """Harmless, unless the budget names the place that the evidence must come from."""
    if budget.evidence is not None:
        detail = f"{detail}, though evidence = {str(budget.evidence)!r} requires it"
        code = ExitCode.MISSING
    else:
        code = ExitCode.OK
    return Judgement(quantity=quantity, verdict=Verdict.UNMEASURED, detail=detail, exit_code=code)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} pt"


def _where(evidence: Evidence) -> str:
    stand_in = ["stand-in"] if evidence.stand_in else []
    runtime = [f"{evidence.where[key]}" for key in ("runtime", "version") if key in evidence.where]
    return ", ".join([str(evidence.place), *stand_in, " ".join(runtime)]).rstrip(", ")
