"""Build: makes every artifact of a plan, and judges it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from edgeship.exchange import project_lock
from edgeship.pipeline.builder import Builder
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.outcome import Outcome
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.workspace import open_workspace
from edgeship.story import Story


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """All outcomes of a build, and how many stages had to work for them."""

    outcomes: tuple[Outcome, ...]
    stages_run: int


def build(plan: Plan, story: Story, *, skips_bad: bool = False) -> BuildResult:
    """Make every artifact of the plan that is not there yet, and judge all.

    An artifact that cannot be made does not keep the others from being made; the last good one
    stays where it is.

    Args:
        plan: What to make.
        story: Told what is done.
        skips_bad: Leave out samples that cannot be loaded, and say so, instead of refusing them.
    """
    workspace = open_workspace(plan.project)

    def tell_waiting(holder: str) -> None:
        story.say(f"waiting for another edgeship (process {holder}) that builds this project")

    with project_lock(workspace.lock_file, on_wait=tell_waiting), ExitStack() as stack:
        workspace.recover()
        data = ProjectData(plan.project, workspace.digests, skips_bad=skips_bad)
        builder = Builder(plan, workspace, data, story, stack)
        outcomes = tuple(builder.outcome(item) for item in plan.artifacts)
        workspace.digests.save()
        workspace.cache.prune(builder.runner.used)
    return BuildResult(outcomes=outcomes, stages_run=builder.runner.stages_run)
