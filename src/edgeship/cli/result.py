"""Results of commands: one table and some lines for people, one JSON value for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgeship.budget import worst_exit_code, worst_verdict
from edgeship.cli.evidence_lines import board_lines, host_lines, kit_lines
from edgeship.errors import EdgeshipError, ExitCode, Problem
from edgeship.evidence import Evidence, evidence_by_runtime
from edgeship.pipeline.outcome import Outcome
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.status import StageStatus
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Metric, Place, Verdict

_NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command has to say.

    Attributes:
        headers: Of the table; none for no table.
        rows: Of the table.
        lines: After the table.
        problems: For stderr.
        value: For `--json`.
        exit_code: Of the command.
    """

    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()
    problems: Sequence[Problem] = ()
    value: dict[str, object] = field(default_factory=dict)
    exit_code: ExitCode = ExitCode.OK


def failure(command: str, error: EdgeshipError) -> Result:
    """A command that was refused."""
    return Result(
        problems=error.problems,
        value=command_value(command, [error.exit_code])
        | {"problems": [problem.to_json() for problem in error.problems]},
        exit_code=error.exit_code,
    )


def planned(plan: Plan, statuses: Sequence[StageStatus]) -> Result:
    """What a build would make."""
    rows, values = [], []
    for item, status in zip(plan.artifacts, statuses, strict=True):
        work = "nothing" if not status.missing else ", ".join(status.missing)
        rules = [f"{rule.match} {rule.precision}" for rule in item.recipe.rules]
        rows.append(
            (
                item.target.name,
                f"{item.format}-{item.recipe.precision}",
                f"{item.target.os.id}",
                str(item.ranges) if item.is_calibrated else _NOTHING,
                "; ".join(rules) or _NOTHING,
                work,
            )
        )
        values.append(
            item_value(item)
            | {
                "os": item.target.os.id,
                "ranges": str(item.ranges) if item.is_calibrated else None,
                "recipe": item.recipe.to_json(),
                "stages_to_run": list(status.missing),
            }
        )
    return Result(
        headers=("target", "artifact", "os", "ranges", "rules", "stages to run"),
        rows=rows,
        lines=_companion_lines(plan.artifacts),
        value=command_value("plan", []) | {"artifacts": values},
    )


def judged(command: str, outcomes: Sequence[Outcome], *, stages_run: int | None = None) -> Result:
    """Artifacts with their evidence and verdicts."""
    codes = [code for outcome in outcomes for code in outcome.exit_codes]
    problems = [p for outcome in outcomes if outcome.error for p in outcome.error.problems]
    value = command_value(command, codes) | {
        "artifacts": [_outcome_value(outcome) for outcome in outcomes],
        "problems": [problem.to_json() for problem in dict.fromkeys(problems)],
    }
    lines = [line for outcome in outcomes for line in _outcome_lines(outcome)]
    lines += _companion_lines([outcome.item for outcome in outcomes if outcome.artifact])
    if stages_run is not None:
        value["stages_run"] = stages_run
        if stages_run == 0 and not problems:
            lines.append("everything was up to date")
    return Result(
        headers=(
            "target",
            "artifact",
            "size",
            "top-1 (95 % interval)",
            "float",
            "agreement",
            "cosine",
            "samples",
            "evidence",
            "verdict",
        ),
        rows=[row for outcome in outcomes for row in _outcome_rows(outcome)],
        lines=lines,
        problems=list(dict.fromkeys(problems)),
        value=value,
        exit_code=worst_exit_code(codes),
    )


def command_value(command: str, codes: Sequence[ExitCode]) -> dict[str, object]:
    """What `--json` gives of every command."""
    failed = sorted({int(code) for code in codes if code is not ExitCode.OK})
    return {
        "command": command,
        "exit_code": int(worst_exit_code(codes)),
        "exit_codes": failed,
    }


def item_value(item: PlannedArtifact) -> dict[str, object]:
    """What `--json` says of which artifact it is."""
    return {
        "target": item.target.name,
        "format": str(item.format),
        "precision": item.recipe.precision,
        "companion": item.is_companion,
    }


def _outcome_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """One for each runtime in which the artifact was measured."""
    item, artifact = outcome.item, outcome.artifact
    head = (item.target.name, f"{item.format}-{item.recipe.precision}")
    if artifact is None:
        return [(*head, *(_NOTHING,) * 7, "refused")]
    size = text_from_bytes(artifact.manifest.size_bytes)
    verdict = str(worst_verdict(outcome.judgements))
    measured = _shown(artifact.manifest.evidence)
    if not measured:
        return [(*head, size, *(_NOTHING,) * 6, verdict)]
    return [
        (*head, size, *metric_cells(evidence), _describe(evidence), verdict)
        for evidence in measured
    ]


def _shown(evidence: tuple[Evidence, ...]) -> list[Evidence]:
    """What accuracy is judged by in each runtime, then what boards gave."""
    best = list(evidence_by_runtime(evidence).values())
    return [*best, *(item for item in evidence if item.metrics and _is_of_board(item, best))]


def _ordered(evidence: tuple[Evidence, ...]) -> list[Evidence]:
    """All of it, what is shown in the table first."""
    shown = _shown(evidence)
    return [*shown, *(item for item in evidence if item not in shown)]


def _is_of_board(evidence: Evidence, best: Sequence[Evidence]) -> bool:
    return evidence.place is not Place.HOST and evidence not in best


def metric_cells(evidence: Evidence) -> tuple[str, ...]:
    """Top-1 with its interval, that of the float model, agreement, mean cosine, samples."""
    metrics = evidence.metrics

    def percent(metric: Metric) -> str:
        return f"{100 * metrics[metric]:.2f} %" if metric in metrics else _NOTHING

    top1 = percent(Metric.TOP1)
    if Metric.TOP1 in metrics and evidence.ci95 is not None:
        low, high = evidence.ci95
        top1 += f" ({100 * low:.1f} to {100 * high:.1f})"
    return (
        top1,
        percent(Metric.REFERENCE_TOP1),
        percent(Metric.AGREEMENT),
        f"{metrics[Metric.COSINE_MEAN]:.4f}" if Metric.COSINE_MEAN in metrics else _NOTHING,
        str(evidence.samples),
    )


def _describe(evidence: Evidence) -> str:
    stand_in = ", stand-in" if evidence.stand_in else ""
    runtime = evidence.where.get("runtime")
    return f"{evidence.rung} on {evidence.place}{stand_in}{f', {runtime}' if runtime else ''}"


def _outcome_value(outcome: Outcome) -> dict[str, object]:
    value = item_value(outcome.item)
    if outcome.artifact is None:
        assert outcome.error is not None  # an outcome has one of the two
        return value | {
            "verdict": None,
            "exit_code": int(outcome.error.exit_code),
            "problems": [problem.to_json() for problem in outcome.error.problems],
        }
    manifest = outcome.artifact.manifest
    return value | {
        "path": str(outcome.artifact.directory),
        "artifact_id": manifest.artifact_id,
        "size_bytes": manifest.size_bytes,
        "verdict": str(worst_verdict(outcome.judgements)),
        "exit_code": int(worst_exit_code(outcome.exit_codes)),
        "judgements": [judgement.to_json() for judgement in outcome.judgements],
        "advice": outcome.advice,
        "evidence": [evidence.to_json() for evidence in _ordered(manifest.evidence)],
        "notes": list(manifest.notes),
    }


def _outcome_lines(outcome: Outcome) -> Iterator[str]:
    """What did not pass, then what the artifact's notes say."""
    for judgement in outcome.judgements:
        if judgement.verdict is not Verdict.PASS:
            yield f"{judgement.verdict}: {outcome.item.name}: {judgement.detail}"
    if outcome.advice is not None:
        yield f"instead: {outcome.item.name}: {outcome.advice}"
    if outcome.artifact is not None:
        found = outcome.artifact.manifest.evidence
        for evidence in evidence_by_runtime(found).values():
            yield from host_lines(outcome.item, evidence)
        for evidence in found:
            yield from board_lines(outcome.item, evidence)
        yield from kit_lines(outcome.item, outcome.artifact.manifest)
        for note in outcome.artifact.manifest.notes:
            yield f"note: {outcome.item.name}: {note}"


def _companion_lines(items: Sequence[PlannedArtifact]) -> list[str]:
    names = [item.name for item in items if item.is_companion]
    if not names:
        return []
    what = "made to compare int8 with; size, latency and memory are not judged"
    return [f"note: {', '.join(names)}: {what}"]
