"""Advice: what would pass in the place of an int8 that lost too much, measured, not guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from edgeship.accuracy import judge_evidence
from edgeship.budget import Judgement
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.project import Project
from edgeship.vocabulary import PRECISIONS, Verdict

_HARDER: Final = "int8"
_EASIER: Final = "dynamic"


def easier_item(item: PlannedArtifact, judgements: Iterable[Judgement]) -> PlannedArtifact | None:
    """The same artifact in the precision to try: an int8 that fails on accuracy, as dynamic."""
    is_lost = any(judgement.exit_code is ExitCode.ACCURACY for judgement in judgements)
    if not is_lost or item.recipe.precision != _HARDER or _EASIER not in PRECISIONS[item.format]:
        return None
    return replace(item, recipe=replace(item.recipe, precision=_EASIER, rules=()))


def advise(project: Project, item: PlannedArtifact, evidence: Sequence[Evidence]) -> str | None:
    """One line on the easier item, from what it reached on the evaluation data."""
    if project.evaluation is None:
        return None
    metric = project.evaluation.metric
    judgements = [
        judgement
        for measured in evidence
        for judgement in judge_evidence(measured, item.budget, metric)
    ]
    failed = [judgement for judgement in judgements if judgement.verdict is Verdict.FAIL]
    name = f'precision "{item.recipe.precision}" (activations in float, not fully integer)'
    details = "; ".join(judgement.detail for judgement in failed or judgements)
    if failed:
        return f"{name} does not pass either: {details}"
    return f'{name} passes: {details}; to take it: precisions = ["{item.recipe.precision}"]'
