"""Way: one artifact through the stages, each of which works when its result is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from edgeship.evidence import Evidence
from edgeship.exporters.protocol import Exporter, Lowered, Payload
from edgeship.pipeline import stages
from edgeship.pipeline.board_sample import BoardSample
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.equalized import Equalized
from edgeship.pipeline.opened import OpenedModel
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.programs import board_programs, programs_key, write_programs
from edgeship.pipeline.runner import StageRunner, Work
from edgeship.pipeline.workspace import Workspace


class Way(ABC):
    """The results of the stages of one artifact."""

    def __init__(
        self,
        item: PlannedArtifact,
        exporter: Exporter,
        *,
        workspace: Workspace,
        data: ProjectData,
        opened: OpenedModel,
        runner: StageRunner,
    ) -> None:
        self.item = item
        self.exporter = exporter
        self._workspace = workspace
        self._project = workspace.project
        self._checkpoint = workspace.checkpoint
        self._data = data
        self._opened = opened
        self._runner = runner

    @property
    def equalized(self) -> Equalized:
        """What became of rewrites of the float model; nothing where none are tried."""
        return Equalized()

    @property
    @abstractmethod
    def lowered(self) -> Lowered:
        """The float file, or what stands for it."""

    @property
    @abstractmethod
    def statistics(self) -> Path | None:
        """Directory of what was observed, where the precision needs it."""

    @property
    @abstractmethod
    def audit(self) -> tuple[str, ...]:
        """What the manifest must say of what was observed."""

    @property
    @abstractmethod
    def emitted(self) -> Path:
        """The artifact's files."""

    @property
    @abstractmethod
    def golden(self) -> Path:
        """The golden pack."""

    @property
    @abstractmethod
    def evidence(self) -> tuple[Evidence, ...]:
        """What was measured."""

    @abstractmethod
    def board_sample(self, count: int) -> BoardSample | None:
        """So many samples of the evaluation data for a board; None where there is none."""

    @cached_property
    def payload(self) -> Payload:
        """What the exporter says of the files."""
        return stages.read_payload(self.emitted)

    @cached_property
    def programs(self) -> dict[str, Path]:
        """Programs that travel along, by name."""
        programs = board_programs(self.item.format)
        if not programs:
            return {}
        key = programs_key(programs)
        self._runner.used.append(key)
        directory = self._run(key, lambda path, _: write_programs(programs, path))
        return {name: directory / name for name in programs}

    def _run(self, key: StageKey, work: Work, detail: str = "") -> Path:
        return self._runner.run(key, self.exporter, f"{self.item.name}{detail}", work)
