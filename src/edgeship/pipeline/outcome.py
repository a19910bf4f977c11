"""Outcome: what became of one planned artifact, and what the budget says of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeship.artifact import Artifact
from edgeship.budget import Judgement
from edgeship.errors import EdgeshipError, ExitCode
from edgeship.judging import judge_artifact
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.project import Project
from edgeship.runtimes.protocol import runtime_package


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one planned artifact: the artifact and its judgements, or the error.

    `advice` is a line on what would pass where it does not.
    """

    item: PlannedArtifact
    artifact: Artifact | None
    judgements: tuple[Judgement, ...]
    error: EdgeshipError | None
    advice: str | None = None

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies."""
        if self.error is not None:
            return [self.error.exit_code]
        return [judgement.exit_code for judgement in self.judgements]


def judge(project: Project, item: PlannedArtifact, artifact: Artifact) -> tuple[Judgement, ...]:
    """Hold a sealed artifact against its target's budget."""
    metric = "cosine" if project.evaluation is None else project.evaluation.metric
    judgements = judge_artifact(
        artifact.manifest,
        item.budget,
        metric=metric,
        packages={
            need.runtime: runtime_package(need.runtime)
            for need in artifact.manifest.requires.any_of
        },
        is_companion=item.is_companion,
    )
    return tuple(judgements)
