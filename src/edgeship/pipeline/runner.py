"""Runner: one stage's result, out of the cache or by its work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeship.errors import Problem, RequirementMissing
from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.health import absent_packages
from edgeship.pipeline.workspace import Workspace
from edgeship.story import Progress, Story

Work = Callable[[Path, Progress], None]
"""Writes a stage's result into an empty directory."""


class StageRunner:
    """Runs the stages of a build that have no result yet.

    Attributes:
        used: The keys of every stage that the build has asked for.
        stages_run: How many had to work.
    """

    def __init__(self, workspace: Workspace, story: Story) -> None:
        self._cache = workspace.cache
        self._story = story
        self.used: list[StageKey] = []
        self.stages_run = 0

    def run(self, key: StageKey, exporter: Exporter, subject: str, work: Work) -> Path:
        """The stage's result; the story tells of its work.

        Raises:
            RequirementMissing: It has to work, and a package is not installed.
        """
        found = self._cache.find(key)
        if found is not None:
            return found
        require_packages(exporter)
        self.stages_run += 1
        with self._story.stage(key.stage, subject) as progress:
            return self._cache.run(key, lambda path: work(path, progress))


def require_packages(exporter: Exporter) -> None:
    """Refuse to start what cannot end.

    Raises:
        RequirementMissing: A package of the exporter's extra is not installed.
    """
    tools = exporter.tools
    absent = absent_packages(tools.packages)
    if absent:
        problem = Problem(
            where="this Python environment",
            what=f"{', '.join(absent)} not installed",
            expected=f"the extra [{tools.extra}]",
            remedy=f"run: pip install 'edgeship[{tools.extra}]'",
        )
        raise RequirementMissing(problem)
