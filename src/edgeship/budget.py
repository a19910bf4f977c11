"""Budget: the limits of a target; judgements, which hold one quantity of an artifact against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeship.errors import ExitCode
from edgeship.vocabulary import Place, Verdict


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


def passed(quantity: str, detail: str) -> Judgement:
    """A quantity within its limit."""
    return Judgement(quantity=quantity, verdict=Verdict.PASS, detail=detail)


def failed(quantity: str, detail: str, exit_code: ExitCode) -> Judgement:
    """A quantity beyond its limit."""
    return Judgement(quantity=quantity, verdict=Verdict.FAIL, detail=detail, exit_code=exit_code)


def unmeasured(quantity: str, detail: str, budget: Budget) -> Judgement:
    """Harmless, unless the budget names the place that the evidence must come from."""
    if budget.evidence is not None:
        detail = f"{detail}, though evidence = {str(budget.evidence)!r} requires it"
        code = ExitCode.MISSING
    else:
        code = ExitCode.OK
    return Judgement(quantity=quantity, verdict=Verdict.UNMEASURED, detail=detail, exit_code=code)


def worst_verdict(judgements: Iterable[Judgement]) -> Verdict:
    """Fail before unmeasured before pass; pass if there is nothing to judge."""
    verdicts = {judgement.verdict for judgement in judgements}
    order = (Verdict.FAIL, Verdict.UNMEASURED)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)


def worst_exit_code(codes: Iterable[ExitCode]) -> ExitCode:
    """The lowest code that is a failure, else OK."""
    return min((code for code in codes if code is not ExitCode.OK), default=ExitCode.OK)
