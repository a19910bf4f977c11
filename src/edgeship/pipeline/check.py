"""Check: holds what was built against the budgets, without building anything."""

from __future__ import annotations

from edgeship.artifact import MANIFEST_NAME, Artifact, read_artifact
from edgeship.errors import EdgeshipError, IntegrityRefused, Problem, RequirementMissing
from edgeship.evidence import best_evidence
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.outcome import Outcome, judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.workspace import Workspace, open_workspace


def check(plan: Plan) -> tuple[Outcome, ...]:
    """Judge every artifact of the plan by the evidence in its manifest; nothing is written.

    An artifact that was never built is RequirementMissing; one whose bytes are not those that were
    built, or whose checkpoint, model code or evaluation data changed since, is IntegrityRefused.
    """
    workspace = open_workspace(plan.project)
    data = ProjectData(plan.project, workspace.digests)
    return tuple(_outcome(plan, item, workspace, data) for item in plan.artifacts)


def _outcome(plan: Plan, item: PlannedArtifact, workspace: Workspace, data: ProjectData) -> Outcome:
    try:
        artifact = read_current(item, workspace, data)
    except EdgeshipError as error:
        return Outcome(item=item, artifact=None, judgements=(), error=error)
    judgements = judge(plan.project, item, artifact)
    return Outcome(item=item, artifact=artifact, judgements=judgements, error=None)


def read_current(item: PlannedArtifact, workspace: Workspace, data: ProjectData) -> Artifact:
    """The artifact that was built, whole and of what the project is now.

    Raises:
        RequirementMissing: It was never built.
        IntegrityRefused: It is damaged, or the checkpoint, code or data changed since.
    """
    directory = workspace.artifact_directory(item.target.name, item.format, item.recipe.precision)
    where = directory.relative_to(workspace.project.directory).as_posix()
    if not (directory / MANIFEST_NAME).is_file():
        problem = Problem(where=where, what="it was never built", remedy="run `edgeship build`")
        raise RequirementMissing(problem)
    artifact = read_artifact(directory)
    damaged = artifact.damaged_files()
    if damaged:
        raise IntegrityRefused(*damaged)
    stale = _stale_input(artifact, workspace, data)
    if stale is not None:
        problem = Problem(
            where=where,
            what=f"{stale} changed since it was built",
            remedy="run `edgeship build`",
        )
        raise IntegrityRefused(problem)
    return artifact


def _stale_input(artifact: Artifact, workspace: Workspace, data: ProjectData) -> str | None:
    """What the artifact or its evidence is not of any more."""
    manifest = artifact.manifest
    if manifest.source.get("checkpoint_sha256") != workspace.checkpoint_sha256():
        return "the checkpoint"
    if workspace.is_code_changed:
        return "the model's code"
    evidence = best_evidence(manifest.evidence)
    if evidence is None or workspace.project.evaluation is None:
        return None
    return None if evidence.data_sha256 == data.evaluation_sha256 else "the evaluation data"
