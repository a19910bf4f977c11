"""Ways: the artifacts of a plan on their way, with what they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from edgeship.exchange import project_lock
from edgeship.pipeline.artifact_way import ArtifactWay
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.language_way import LanguageWay
from edgeship.pipeline.opened import OpenedModel
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.runner import StageRunner
from edgeship.pipeline.way import Way
from edgeship.pipeline.workspace import Workspace, open_workspace
from edgeship.story import Story
from edgeship.vocabulary import Format


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The project's data, its model once it is needed, and what runs the stages."""

    plan: Plan
    workspace: Workspace
    data: ProjectData
    opened: OpenedModel
    runner: StageRunner

    def way(self, item: PlannedArtifact) -> Way:
        """One artifact's results, none of them made yet."""
        way = LanguageWay if item.format is Format.GGUF else ArtifactWay
        return way(
            item,
            self.plan.exporter(item),
            workspace=self.workspace,
            data=self.data,
            opened=self.opened,
            runner=self.runner,
        )


@contextmanager
def open_ways(plan: Plan, story: Story, *, skips_bad: bool = False) -> Iterator[Ways]:
    """The ways of a plan, with the project locked for as long as they are open."""
    workspace = open_workspace(plan.project)

    def tell_waiting(holder: str) -> None:
        story.say(f"waiting for another edgeship (process {holder}) that works on this project")

    with project_lock(workspace.lock_file, on_wait=tell_waiting), ExitStack() as stack:
        workspace.recover()
        yield Ways(
            plan=plan,
            workspace=workspace,
            data=ProjectData(plan.project, workspace.digests, skips_bad=skips_bad),
            opened=OpenedModel(workspace, stack),
            runner=StageRunner(workspace, story),
        )
        workspace.digests.save()
