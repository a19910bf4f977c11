"""Builder: makes, seals and judges the artifacts of one build."""

from __future__ import annotations

from collections.abc import Iterable

import edgeship
from edgeship.artifact import Artifact, ArtifactFile, Manifest, describe_file, read_artifact
from edgeship.calibration.texts import TOKENIZER_NAME
from edgeship.errors import EdgeshipError
from edgeship.pipeline.advice import advise, easier_item
from edgeship.pipeline.evaluation import COMMAND
from edgeship.pipeline.outcome import Outcome, judge
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.seal import gather_companions, gather_files, seal
from edgeship.pipeline.stages import read_golden, table_sha256
from edgeship.pipeline.way import Way
from edgeship.pipeline.ways import Ways
from edgeship.pipeline.workspace import package_versions
from edgeship.story import Story
from edgeship.vocabulary import Format, Role


class Builder:
    """The artifacts of one build, one after the other."""

    def __init__(self, ways: Ways, story: Story) -> None:
        self._ways = ways
        self._plan = ways.plan
        self._workspace = ways.workspace
        self._story = story

    def outcome(self, item: PlannedArtifact) -> Outcome:
        """Make one artifact and judge it; what refuses it is in the outcome."""
        try:
            artifact = self._artifact(self._ways.way(item))
        except EdgeshipError as error:
            return Outcome(item=item, artifact=None, judgements=(), error=error)
        judgements = judge(self._plan.project, item, artifact)
        easier = easier_item(item, judgements)
        return Outcome(
            item=item,
            artifact=artifact,
            judgements=judgements,
            error=None,
            advice=None if easier is None else self._advice(easier),
        )

    def _advice(self, item: PlannedArtifact) -> str | None:
        """What an item reaches that nobody asked for; it is measured, and not sealed."""
        try:
            return advise(self._plan.project, item, self._ways.way(item).evidence)
        except EdgeshipError:
            return None

    def _artifact(self, way: Way) -> Artifact:
        """Sealed, with its evidence in the place of what earlier builds measured."""
        item, project = way.item, self._plan.project
        files = gather_files(way.emitted, way.payload, way.golden, read_golden(way.golden))
        model = project.model
        tokenizer = None
        if model.text is not None and item.format is not Format.GGUF:  # which holds its own
            tokenizer = model.text.tokenizer / TOKENIZER_NAME
        files |= gather_companions({Role.LABELS: model.labels, Role.TOKENIZER: tokenizer})
        for name, path in way.programs.items():
            files[path] = describe_file(path.parent, name, Role.PROGRAM)
        destination = self._workspace.artifact_directory(
            item.target.name, item.format, item.recipe.precision
        )
        if seal(files, self._manifest(way, files.values()), destination):
            self._story.say(f"sealed {destination.relative_to(project.directory)}")
        artifact = read_artifact(destination)
        present = artifact.manifest.evidence
        others = tuple(evidence for evidence in present if evidence.command != COMMAND)
        wanted = (*others, *way.evidence)
        return artifact if wanted == present else artifact.with_evidence(wanted)

    def _manifest(self, way: Way, files: Iterable[ArtifactFile]) -> Manifest:
        item = way.item
        statistics = None if way.statistics is None else table_sha256(way.statistics)
        return Manifest(
            edgeship=edgeship.__version__,
            target=item.target.name,
            format=item.format,
            precision=item.recipe.precision,
            files=tuple(sorted(files, key=lambda file: file.name)),
            source={
                "checkpoint_sha256": self._workspace.checkpoint_sha256(),
                "lowered_sha256": way.lowered.sha256,
                "statistics_sha256": statistics,
                "recipe": [*item.recipe.to_json(), *way.equalized.recipe()],
            },
            tools=package_versions(way.exporter.tools.packages),
            contract=way.payload.contract,
            requires=way.payload.requires,
            notes=(
                *way.lowered.notes,
                *way.equalized.notes(),
                *way.payload.notes,
                *way.audit,
            ),
        )
