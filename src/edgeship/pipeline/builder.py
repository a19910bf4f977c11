"""Builder: the way of one artifact through the stages, with what they share opened once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import edgeship
from edgeship.artifact import Artifact, Manifest, read_artifact
from edgeship.calibration.texts import TOKENIZER_NAME
from edgeship.errors import EdgeshipError, Problem, RequirementMissing
from edgeship.evidence import Evidence
from edgeship.exporters.protocol import Exporter, Lowered
from edgeship.pipeline import stages
from edgeship.pipeline.audit import audit_samples, read_audit
from edgeship.pipeline.cache import StageKey
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.health import absent_packages
from edgeship.pipeline.keys import ArtifactKeys, artifact_keys
from edgeship.pipeline.outcome import Outcome, judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.seal import gather_companions, gather_files, seal
from edgeship.pipeline.workspace import Workspace, package_versions
from edgeship.runtimes.protocol import load_runtime
from edgeship.story import Progress, Story
from edgeship.vocabulary import Role

if TYPE_CHECKING:
    from edgeship.source.imports import ProjectImports
    from edgeship.source.model import Model


class Builder:
    """The lazily opened resources of one build, and the way of one artifact through the stages."""

    def __init__(
        self, plan: Plan, workspace: Workspace, data: ProjectData, story: Story, stack: ExitStack
    ) -> None:
        self._plan = plan
        self._project = plan.project
        self._workspace = workspace
        self._story = story
        self._stack = stack
        self._data = data
        self.used: list[StageKey] = []
        self.stages_run = 0

    def outcome(self, item: PlannedArtifact) -> Outcome:
        """Make one artifact and judge it; what refuses it is in the outcome."""
        try:
            artifact = self._artifact(item)
        except EdgeshipError as error:
            return Outcome(item=item, artifact=None, judgements=(), error=error)
        judgements = judge(self._project, item, artifact)
        return Outcome(item=item, artifact=artifact, judgements=judgements, error=None)

    def _artifact(self, item: PlannedArtifact) -> Artifact:
        exporter = self._plan.exporter(item)
        keys = artifact_keys(item, exporter, self._workspace, self._data, self._imports(exporter))
        self.used += keys.all()
        lowered_directory = self._stage(
            keys.lower,
            exporter,
            item,
            lambda path, _: stages.lower(exporter, self._model, self._data, path),
        )
        lowered = stages.read_lowered(lowered_directory)
        stages.require_label_count(self._project, lowered.contract)
        statistics = self._observed(keys, exporter, item, lowered)
        notes = self._audited(keys, exporter, item, lowered, statistics)
        emitted = self._stage(
            keys.emit,
            exporter,
            item,
            lambda path, _: self._emit(exporter, lowered, statistics, item, path),
        )
        golden = self._stage(
            keys.golden,
            exporter,
            item,
            lambda path, _: stages.golden(self._model, emitted, self._data, path),
        )
        artifact = self._seal(item, exporter, lowered, statistics, emitted, golden, notes)
        return self._with_evidence(artifact, self._evaluated(keys, exporter, item, emitted))

    def _observed(
        self, keys: ArtifactKeys, exporter: Exporter, item: PlannedArtifact, lowered: Lowered
    ) -> Path | None:
        calibration = self._project.calibration
        if keys.observe is None or calibration is None:
            return None
        return self._stage(
            keys.observe,
            exporter,
            item,
            lambda path, progress: stages.observe_samples(
                lowered, self._data.calibration, calibration.samples, path, progress
            ),
        )

    def _audited(
        self,
        keys: ArtifactKeys,
        exporter: Exporter,
        item: PlannedArtifact,
        lowered: Lowered,
        statistics: Path | None,
    ) -> tuple[str, ...]:
        """What the manifest must say of the representative data."""
        if keys.audit is None or statistics is None:
            return ()
        audited = self._stage(
            keys.audit,
            exporter,
            item,
            lambda path, progress: audit_samples(
                lowered,
                statistics,
                self._data.calibration,
                None if self._project.evaluation is None else self._data.evaluation,
                self._data.skipped,
                path,
                progress,
            ),
        )
        return read_audit(audited)

    def _emit(
        self,
        exporter: Exporter,
        lowered: Lowered,
        statistics: Path | None,
        item: PlannedArtifact,
        directory: Path,
    ) -> None:
        ranges = None if statistics is None else stages.solve(lowered, statistics, item.ranges)
        stages.emit(exporter, lowered, ranges, item, directory)

    def _evaluated(
        self, keys: ArtifactKeys, exporter: Exporter, item: PlannedArtifact, emitted: Path
    ) -> Evidence:
        reference = None
        if keys.reference is not None:
            reference = self._stage(
                keys.reference,
                exporter,
                item,
                lambda path, progress: stages.reference(
                    self._model, self._data.evaluation, path, progress
                ),
            )
        evaluated = self._stage(
            keys.evaluate,
            exporter,
            item,
            lambda path, progress: stages.evaluate(
                self._project, emitted, reference, self._data, path, progress
            ),
        )
        return stages.read_evidence(evaluated)

    def _seal(
        self,
        item: PlannedArtifact,
        exporter: Exporter,
        lowered: Lowered,
        statistics: Path | None,
        emitted: Path,
        golden: Path,
        notes: tuple[str, ...],
    ) -> Artifact:
        payload = stages.read_payload(emitted)
        names = stages.read_golden(golden)
        model = self._project.model
        tokenizer = None if model.text is None else model.text.tokenizer / TOKENIZER_NAME
        files = gather_files(emitted, payload, golden, names)
        files |= gather_companions({Role.LABELS: model.labels, Role.TOKENIZER: tokenizer})
        manifest = Manifest(
            edgeship=edgeship.__version__,
            target=item.target.name,
            format=item.format,
            precision=item.recipe.precision,
            files=tuple(sorted(files.values(), key=lambda file: file.name)),
            source={
                "checkpoint_sha256": self._workspace.checkpoint_sha256(),
                "lowered_sha256": lowered.sha256,
                "statistics_sha256": None
                if statistics is None
                else stages.statistics_sha256(statistics),
                "recipe": item.recipe.to_json(),
            },
            tools=package_versions(exporter.tools.packages),
            contract=payload.contract,
            requires=payload.requires,
            notes=(*lowered.notes, *payload.notes, *notes),
        )
        destination = self._workspace.artifact_directory(
            item.target.name, item.format, item.recipe.precision
        )
        if seal(files, manifest, destination):
            self._story.say(f"sealed {destination.relative_to(self._project.directory)}")
        return read_artifact(destination)

    @staticmethod
    def _with_evidence(artifact: Artifact, evidence: Evidence) -> Artifact:
        """The artifact with this evidence in the place of what earlier builds measured."""
        present = artifact.manifest.evidence
        others = tuple(item for item in present if item.command != evidence.command)
        wanted = (*others, evidence)
        return artifact if wanted == present else artifact.with_evidence(wanted)

    def _stage(
        self,
        key: StageKey,
        exporter: Exporter,
        item: PlannedArtifact,
        work: Callable[[Path, Progress], None],
    ) -> Path:
        """The stage's result, out of the cache or by its work, which the story tells."""
        found = self._workspace.cache.find(key)
        if found is not None:
            return found
        require_packages(exporter)
        self.stages_run += 1
        with self._story.stage(key.stage, item.name) as progress:
            return self._workspace.cache.run(key, lambda path: work(path, progress))

    def _imports(self, exporter: Exporter) -> Mapping[str, str]:
        """Digests of the project's imported files, from memory if none has changed."""
        known = self._workspace.known_imports()
        if known is not None:
            return known
        require_packages(exporter)
        return self._learnt_imports

    @cached_property
    def _learnt_imports(self) -> Mapping[str, str]:
        """Of the whole model, since a factory may import when it is called."""
        _ = self._model  # loaded, and thereby everything imported
        return self._workspace.remember_imports(self._project_imports.files())

    @cached_property
    def _model(self) -> Model:
        from edgeship.source.model import load_model

        self._project_imports  # noqa: B018 - opened for the factory
        return load_model(self._project.model, load_runtime("onnxruntime").open)

    @cached_property
    def _project_imports(self) -> ProjectImports:
        from edgeship.source.imports import project_imports

        return self._stack.enter_context(project_imports(self._project.directory))


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
