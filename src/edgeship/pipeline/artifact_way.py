"""Artifact way: an ONNX or TFLite artifact through its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeship.calibration.samples import select_samples
from edgeship.evaluate.outputs import read_outputs
from edgeship.evidence import Evidence
from edgeship.exporters.protocol import Card, Lowered
from edgeship.measurements import SpeedShare
from edgeship.pipeline import evaluation, stages
from edgeship.pipeline.audit import audit_samples, read_audit
from edgeship.pipeline.board_sample import BoardSample, tensor_sample
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.candidate import Trials
from edgeship.pipeline.equalization import load_rewritten, write_equalized
from edgeship.pipeline.equalize_keys import equalize_key
from edgeship.pipeline.equalized import Equalized, read_equalized
from edgeship.pipeline.keys import ArtifactKeys, artifact_keys
from edgeship.pipeline.speed import measure_speed, read_speed
from edgeship.pipeline.way import Way
from edgeship.story import Progress

if TYPE_CHECKING:
    from edgeship.source.model import Model


class ArtifactWay(Way):
    """Lowered, observed, audited, emitted, and evaluated in every runtime of the target."""

    @cached_property
    def _keys(self) -> ArtifactKeys:
        imports = self._opened.imports(self.exporter)
        self.equalized  # noqa: B018 - the keys of what follows depend on it
        keys = artifact_keys(self.item, self.exporter, self._workspace, self._data, imports)
        self._runner.used += keys.all()
        return keys

    @cached_property
    def equalized(self) -> Equalized:
        """What became of the rewrites of the float model."""
        imports = self._opened.imports(self.exporter)
        key = equalize_key(self.item, self.exporter, self._workspace, self._data, imports)
        if key is None:
            return Equalized()
        self._runner.used.append(key)

        def work(path: Path, progress: Progress) -> None:
            assert self._project.calibration is not None  # the plan refuses integers without
            write_equalized(
                self.item,
                self.exporter,
                self._opened.model,
                checkpoint=self._checkpoint,
                trials=Trials.of(self._data, self._project.calibration.samples),
                directory=path,
                progress=progress,
            )

        return read_equalized(self._run(key, work))

    @cached_property
    def lowered(self) -> Lowered:
        """The float file.

        Raises:
            ConfigurationError: The labels are not those of its output.
        """
        lowered = self._lowered(self._keys.lower, self._load_rewritten)
        evaluation.require_label_count(self._project, lowered.contract)
        return lowered

    def _lowered(self, key: StageKey, load: Callable[[], Model]) -> Lowered:
        def work(path: Path, _: Progress) -> None:
            stages.lower(self.exporter, load, self._checkpoint, self._data, path)

        return stages.read_lowered(self._run(key, work))

    def _load_rewritten(self) -> Model:
        """The float model with the rewrites that were kept."""
        equalize, model = self._keys.equalize, self._opened.model
        if equalize is None or not self.equalized.kept:
            return model
        return load_rewritten(self._workspace.cache.path(equalize), model)

    @cached_property
    def statistics(self) -> Path | None:
        """The table, where ranges are needed."""
        if self._keys.observe is None:
            return None

        def work(path: Path, progress: Progress) -> None:
            samples = self._data.calibration
            stages.observe_samples(self._project, self.lowered, samples, path, progress)

        return self._run(self._keys.observe, work)

    @cached_property
    def audit(self) -> tuple[str, ...]:
        """What the manifest must say of the representative data.

        Raises:
            ConfigurationError: The data is certainly wrong; no artifact may be made of it.
        """
        if self._keys.audit is None or self.statistics is None:
            return ()
        statistics = self.statistics

        def work(path: Path, progress: Progress) -> None:
            audit_samples(
                self.lowered,
                statistics,
                self._project.model.input_specs(),
                self._data.calibration,
                None if self._project.evaluation is None else self._data.evaluation,
                self._data.skipped,
                path,
                progress,
            )

        return read_audit(self._run(self._keys.audit, work))

    @cached_property
    def emitted(self) -> Path:
        """The artifact's files; only of data that passed the audit."""
        self.audit  # noqa: B018 - refuses

        def work(path: Path, progress: Progress) -> None:
            ranges = None
            if self.statistics is not None:
                ranges = stages.solve(self.lowered, self.statistics, self.item.ranges)
            labels = evaluation.read_labels(self._project)
            card = Card(name=self._project.model.name, labels=labels)
            checkpoint = self._checkpoint
            stages.emit(
                self.exporter, self.lowered, ranges, self.item, card, checkpoint, path, progress
            )

        return self._run(self._keys.emit, work)

    @cached_property
    def golden(self) -> Path:
        """The golden pack."""

        def work(path: Path, _: Progress) -> None:
            stand_in = self.exporter.tools.stand_in
            stages.golden(self._opened.model, self.emitted, self._data, path, stand_in)

        return self._run(self._keys.golden, work)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """One measurement in each runtime that can run the files and is on this host."""
        stand_in = self.exporter.tools.stand_in
        able = {need.runtime for need in self.payload.requires.any_of} | {stand_in}
        found = {
            runtime: self._evidence_in(runtime, key)
            for runtime, key in self._keys.evaluate.items()
            if runtime in able
        }
        shared = self.lowered.runtime
        if self._keys.speed is not None and shared in found:
            speed = self._speed(self._keys.speed)
            found[shared] = replace(found[shared], speed=speed)
        return tuple(found.values())

    def board_sample(self, count: int) -> BoardSample | None:
        """The first ones in digest order."""
        if count == 0 or self._reference is None:
            return None
        return tensor_sample(
            self._data,
            select_samples(self._data.evaluation.samples, count),
            read_outputs(self._reference),
            model_inputs=self._project.model.input_specs(),
            contract=self.payload.contract,
        )

    def _speed(self, key: StageKey) -> SpeedShare:
        """Against the float file of the model as it is: some rewrites make float slower."""

        def work(path: Path, _: Progress) -> None:
            inputs = self._project.model.input_specs()
            plain = self._lowered(self._keys.plain, self._opened.load)
            measure_speed(plain, self.emitted, inputs, self._data, path)

        return read_speed(self._run(key, work))

    def _evidence_in(self, runtime: str, key: StageKey) -> Evidence:
        reference = self._reference

        def work(path: Path, progress: Progress) -> None:
            evaluation.evaluate(
                self._project,
                self.emitted,
                runtime,
                reference,
                self._data,
                path,
                progress,
                is_stand_in=self.exporter.tools.stand_in is not None,
            )

        return evaluation.read_evidence(self._run(key, work, f" in {runtime}"))

    @cached_property
    def _reference(self) -> Path | None:
        """The float model's outputs, where there is evaluation data."""
        if self._keys.reference is None:
            return None

        def work(path: Path, progress: Progress) -> None:
            evaluation.reference(self._opened.model, self._data.evaluation, path, progress)

        return self._run(self._keys.reference, work)
