"""Status: which stages of a plan have no result yet; writes nothing, imports no vendor package."""

from __future__ import annotations

from dataclasses import dataclass

from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.keys import ArtifactKeys, artifact_keys
from edgeship.pipeline.language_keys import LanguageKeys, language_keys
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.workspace import Workspace, open_workspace
from edgeship.vocabulary import Format


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """Names of the stages of one artifact that would have to work, in order."""

    missing: tuple[str, ...]


def plan_status(plan: Plan) -> list[StageStatus]:
    """One status for each artifact of the plan."""
    workspace = open_workspace(plan.project)
    data = ProjectData(plan.project, workspace.digests)
    return [_status(plan, item, workspace, data) for item in plan.artifacts]


def _status(
    plan: Plan, item: PlannedArtifact, workspace: Workspace, data: ProjectData
) -> StageStatus:
    """A factory whose imports are not known, or have changed, makes every stage's key unknown."""
    imports = workspace.known_imports()
    keys: ArtifactKeys | LanguageKeys
    if item.format is Format.GGUF:
        keys = language_keys(item, plan.exporter(item), workspace, data)
    else:
        keys = artifact_keys(item, plan.exporter(item), workspace, data, imports or {})
    return StageStatus(
        missing=tuple(
            key.stage for key in keys.all() if imports is None or not workspace.cache.has(key)
        )
    )
