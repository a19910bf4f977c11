"""Language way: the GGUF file of a language model or an encoder through its stages."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

from edgeship.calibration.importance_file import read_importance
from edgeship.calibration.samples import select_samples
from edgeship.evaluate.outputs import read_outputs
from edgeship.evidence import Evidence
from edgeship.exporters.protocol import Card, Lowered
from edgeship.pipeline import evaluation, language, stages
from edgeship.pipeline.board_sample import BoardSample, tensor_sample
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.choice import (
    Choice,
    choose,
    importance_texts,
    read_choice,
    scored_texts,
)
from edgeship.pipeline.data import Data
from edgeship.pipeline.embedding import embedding_loss, evaluate_embeddings
from edgeship.pipeline.language_keys import LanguageKeys, language_keys
from edgeship.pipeline.way import Way
from edgeship.source.encoder import is_causal
from edgeship.story import Progress

_SAMPLES_IN_CHUNK: Final = 16
"""A choice: a chunk of text for so many samples, of which a board is asked 64."""


class LanguageWay(Way):
    """Lowered, weighted by importance, chosen, and evaluated in llama.cpp."""

    @cached_property
    def _keys(self) -> LanguageKeys:
        keys = language_keys(self.item, self.exporter, self._workspace, self._data)
        self._runner.used += keys.all()
        return keys

    @cached_property
    def _is_causal(self) -> bool:
        return is_causal(self._checkpoint)

    @cached_property
    def lowered(self) -> Lowered:
        """The checkpoint, its tokenizer proven."""

        def work(path: Path, _: Progress) -> None:
            load, script = self._opened.load, self.item.recipe.converter
            stages.lower(self.exporter, load, self._checkpoint, self._data, path, script)

        return stages.read_lowered(self._run(self._keys.lower, work))

    @cached_property
    def statistics(self) -> Path | None:
        """Directory of the importance file, where the type can use one."""
        if self._keys.importance is None:
            return None
        assert self._project.calibration is not None  # there is no key without
        texts = importance_texts(self._data)
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
    def golden(self) -> Path:
        """Prompts with the tokens that follow; of an encoder texts with their embeddings."""

        def work(path: Path, _: Progress) -> None:
            if self._is_causal:
                texts = self._data.texts(Data.EVALUATION) or self._data.texts(Data.CALIBRATION)
                language.golden_tokens(self._opened.model, self.emitted, texts, path)
            else:
                stages.golden(self._opened.model, self.emitted, self._data, path)

        return self._run(self._keys.golden[self._is_weighted], work)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """One measurement, in llama.cpp."""
        evaluate = language.evaluate_language if self._is_causal else evaluate_embeddings

        def work(path: Path, progress: Progress) -> None:
            model = self._opened.model
            evaluate(self._project, model, self.emitted, self._data, path, progress)

        directory = self._run(self._keys.evaluate[self._is_weighted], work)
        return (evaluation.read_evidence(directory),)

    def board_sample(self, count: int) -> BoardSample | None:
        """Chunks of held-out text; of an encoder the first samples in digest order.

        A chunk stands for 16 samples: 64 are four chunks, in the time that 64 images take.
        """
        if self._keys.reference is None or count == 0:
            return None

        def work(path: Path, progress: Progress) -> None:
            model = self._opened.model
            if self._is_causal:
                texts = self._data.texts(Data.EVALUATION)
                length = self.lowered.contract.inputs[0].shape[-1]
                language.reference_losses(model, self.emitted, texts, length, path, progress)
            else:
                evaluation.reference(model, self._data.evaluation, path, progress)

        directory = self._run(self._keys.reference, work)
        if self._is_causal:
            return language.read_text_sample(directory, -(-count // _SAMPLES_IN_CHUNK))
        return tensor_sample(
            self._data,
            select_samples(self._data.evaluation.samples, count),
            read_outputs(directory),
            model_inputs=self._project.model.input_specs(),
            contract=self.payload.contract,
        )

    @property
    def _is_weighted(self) -> bool:
        return self._choice is not None and self._choice.takes_importance

    @cached_property
    def _choice(self) -> Choice | None:
        plain = self._plain  # first: what cannot be written is told before importance is made
        if self._keys.choose is None or self._weighted is None:
            return None
        weighted = self._weighted
        text = self._project.model.text
        assert text is not None  # texts need such an input
        length = text.length
        loss = language.language_loss if self._is_causal else embedding_loss

        def work(path: Path, progress: Progress) -> None:
            model, texts = self._opened.model, scored_texts(self._data)
            choose(
                lambda tell: loss(model, plain, texts, length, tell),
                lambda tell: loss(model, weighted, texts, length, tell),
                path,
                progress,
            )

        return read_choice(self._run(self._keys.choose, work))

    @cached_property
    def _plain(self) -> Path:
        return self._emit(self._keys.emit, None)

    @cached_property
    def _weighted(self) -> Path | None:
        if self._keys.weighted is None or self.statistics is None:
            return None
        return self._emit(self._keys.weighted, self.statistics / stages.IMPORTANCE_NAME)

    def _emit(self, key: StageKey, importance: Path | None) -> Path:
        def work(path: Path, progress: Progress) -> None:
            table = None if importance is None else read_importance(importance)
            card = Card(name=self._project.model.name)
            checkpoint = self._checkpoint
            stages.emit(
                self.exporter, self.lowered, table, self.item, card, checkpoint, path, progress
            )

        detail = "" if importance is None else " with importance"
        return self._run(key, work, detail)
