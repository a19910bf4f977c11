"""Language way: one language model's artifact through its stages."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from edgeship.calibration.importance_file import read_importance
from edgeship.evidence import Evidence
from edgeship.exporters.protocol import Card, Exporter, Lowered, Payload
from edgeship.pipeline import evaluation, language, stages
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.data import Data, ProjectData
from edgeship.pipeline.language_keys import language_keys
from edgeship.pipeline.opened import OpenedModel
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.runner import StageRunner, Work
from edgeship.pipeline.workspace import Workspace
from edgeship.story import Progress


class LanguageWay:
    """The results of the stages, with the names that `ArtifactWay` has for them."""

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
        self._project = workspace.project
        self._checkpoint = workspace.checkpoint
        self._data = data
        self._opened = opened
        self._runner = runner
        self._keys = language_keys(item, exporter, workspace, data)
        runner.used += self._keys.all()

    @cached_property
    def lowered(self) -> Lowered:
        """The checkpoint, its tokenizer proven."""

        def work(path: Path, _: Progress) -> None:
            stages.lower(self.exporter, self._opened.load, self._checkpoint, self._data, path)

        return stages.read_lowered(self._run(self._keys.lower, work))

    @cached_property
    def statistics(self) -> Path | None:
        """Directory of the importance file, where the type can use one."""
        if self._keys.importance is None:
            return None
        assert self._project.calibration is not None  # there is no key without
        texts = language.importance_texts(self._data)
        name = self._project.calibration.data.name

        def work(path: Path, progress: Progress) -> None:
            language.observe_importance(self._checkpoint, texts, name, path, progress)

        return self._run(self._keys.importance, work)

    @cached_property
    def audit(self) -> tuple[str, ...]:
        """What the manifest must say of importance."""
        if self.statistics is None or self._choice is None:
            return ()
        return (self._choice.note(), *language.read_importance_notes(self.statistics))

    @cached_property
    def emitted(self) -> Path:
        """The file that is closer to the float model."""
        return self._weighted if self._is_weighted and self._weighted else self._plain

    @cached_property
    def payload(self) -> Payload:
        """What the exporter says of it."""
        return stages.read_payload(self.emitted)

    @cached_property
    def golden(self) -> Path:
        """Prompts with the tokens that follow."""
        texts = self._data.texts(Data.EVALUATION) or self._data.texts(Data.CALIBRATION)

        def work(path: Path, _: Progress) -> None:
            language.golden_tokens(self._opened.model, self.emitted, texts, path)

        return self._run(self._keys.golden[self._is_weighted], work)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """One measurement, in llama.cpp."""

        def work(path: Path, progress: Progress) -> None:
            language.evaluate_language(
                self._project, self._opened.model, self.emitted, self._data, path, progress
            )

        directory = self._run(self._keys.evaluate[self._is_weighted], work)
        return (evaluation.read_evidence(directory),)

    @property
    def _is_weighted(self) -> bool:
        return self._choice is not None and self._choice.takes_importance

    @cached_property
    def _choice(self) -> language.Choice | None:
        if self._keys.choose is None or self._weighted is None:
            return None
        files = (self._plain, self._weighted)
        text = self._project.model.text
        assert text is not None  # texts need such an input
        length = text.length

        def work(path: Path, progress: Progress) -> None:
            scored = language.scored_texts(self._data)
            language.choose(self._opened.model, files, scored, length, path, progress)

        return language.read_choice(self._run(self._keys.choose, work))

    @cached_property
    def _plain(self) -> Path:
        return self._emit(self._keys.emit, None)

    @cached_property
    def _weighted(self) -> Path | None:
        if self._keys.weighted is None or self.statistics is None:
            return None
        return self._emit(self._keys.weighted, self.statistics / stages.IMPORTANCE_NAME)

    def _emit(self, key: StageKey, importance: Path | None) -> Path:
        def work(path: Path, _: Progress) -> None:
            table = None if importance is None else read_importance(importance)
            card = Card(name=self._project.model.name)
            stages.emit(self.exporter, self.lowered, table, self.item, card, self._checkpoint, path)

        detail = "" if importance is None else " with importance"
        return self._run(key, work, detail)

    def _run(self, key: StageKey, work: Work, detail: str = "") -> Path:
        return self._runner.run(key, self.exporter, f"{self.item.name}{detail}", work)
