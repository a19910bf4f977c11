"""Check: holds what was built against the budgets, without building anything."""

from __future__ import annotations

from edgeship.artifact import MANIFEST_NAME, Artifact, read_artifact
from edgeship.errors import EdgeshipError, IntegrityRefused, Problem, RequirementMissing
from edgeship.pipeline.build import Outcome, judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.workspace import Workspace, open_workspace


def check(plan: Plan) -> tuple[Outcome, ...]:
    """Judge every artifact of the plan by the evidence in its manifest; nothing is written.

    An artifact that was never built is RequirementMissing; one whose bytes are not those that were
    built, or that was built from another checkpoint, is IntegrityRefused.
    """
    workspace = open_workspace(plan.project)
    return tuple(_outcome(plan, item, workspace) for item in plan.artifacts)


def _outcome(plan: Plan, item: PlannedArtifact, workspace: Workspace) -> Outcome:
    try:
        artifact = _read(item, workspace)
    except EdgeshipError as error:
        return Outcome(item=item, artifact=None, judgements=(), error=error)
    judgements = judge(plan.project, item, artifact)
    return Outcome(item=item, artifact=artifact, judgements=judgements, error=None)


def _read(item: PlannedArtifact, workspace: Workspace) -> Artifact:
    directory = workspace.artifact_directory(item.target.name, item.format, item.recipe.precision)
    where = directory.relative_to(workspace.project.directory).as_posix()
    if not (directory / MANIFEST_NAME).is_file():
        problem = Problem(where=where, what="it was never built", remedy="run `edgeship build`")
        raise RequirementMissing(problem)
    artifact = read_artifact(directory)
    damaged = artifact.damaged_files()
    if damaged:
        raise IntegrityRefused(*damaged)
    current = workspace.checkpoint_sha256()
    built_from = artifact.manifest.source.get("checkpoint_sha256")
    if built_from != current:
        problem = Problem(
            where=where,
            what="it was built from another checkpoint",
            expected=f"sha256 {current}",
            found=f"sha256 {built_from}",
            remedy="run `edgeship build`",
        )
        raise IntegrityRefused(problem)
    return artifact
