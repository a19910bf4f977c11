"""Build: makes every artifact of a plan, and judges it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeship.pipeline.builder import Builder
from edgeship.pipeline.outcome import Outcome
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.ways import open_ways
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
    with open_ways(plan, story, skips_bad=skips_bad) as ways:
        builder = Builder(ways, story)
        outcomes = tuple(builder.outcome(item) for item in plan.artifacts)
        ways.workspace.cache.prune(ways.runner.used)
    return BuildResult(outcomes=outcomes, stages_run=ways.runner.stages_run)
