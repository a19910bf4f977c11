"""Stand: one board, and what is needed to run a project's artifacts on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeship.artifact import Artifact
from edgeship.device_tests.open_board import OpenBoard
from edgeship.errors import EdgeshipError, IntegrityRefused, Problem
from edgeship.evidence import Evidence, utc_now
from edgeship.pipeline.check import read_current
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.ways import Ways
from edgeship.runtimes.protocol import runtime_package
from edgeship.story import Story
from edgeship.targets.board_facts import FoundRuntime
from edgeship.targets.compatibility import differences, misfits, unchecked
from edgeship.targets.compatibility_files import read_file_needs
from edgeship.targets.compatibility_runtimes import usable_runtimes
from edgeship.vocabulary import Role, Rung


@dataclass(frozen=True, kw_only=True)
class Built:
    """A planned artifact that was built."""

    item: PlannedArtifact
    artifact: Artifact

    @property
    def model_file(self) -> Path:
        """The file that a runtime loads."""
        names = [file.name for file in self.artifact.manifest.files if file.role is Role.MODEL]
        return self.artifact.directory / names[0]


@dataclass(frozen=True, kw_only=True)
class Stand:
    """One board while artifacts are run on it.

    Attributes:
        board: Reached and probed.
        ways: Of the project.
        story: Told what is done.
        forces: Whether what the board does not seem to be able to run is tried all the same.
    """

    board: OpenBoard
    ways: Ways
    story: Story
    forces: bool

    def misfits(self, built: Built, others: Sequence[Built]) -> list[Problem]:
        """What the board lacks, and which of the others would fit; also of programs brought along.

        Raises:
            IntegrityRefused: It lacks something, and nothing is forced.
        """
        wrong = misfits(
            built.artifact.manifest,
            self.board.facts,
            built.item.target,
            model_file=built.model_file,
            brought=self.board.brought,
            others=[other.artifact.manifest for other in others if other is not built],
        )
        if wrong and not self.forces:
            raise IntegrityRefused(*wrong)
        return [*wrong, *self.board.misfits]

    def runtimes(self, built: Built) -> Sequence[FoundRuntime]:
        """Those that fit, one of each name; where none does, those that are there."""
        manifest, board = built.artifact.manifest, self.board
        needs = read_file_needs(built.model_file, manifest.format)
        fitting = usable_runtimes(manifest, board.facts, file=needs, brought=board.brought)
        named = [need.runtime for need in manifest.requires.any_of]
        present = [item for item in (*board.brought, *board.facts.runtimes) if item.name in named]
        first: dict[str, FoundRuntime] = {}
        for found in fitting or present:
            first.setdefault(found.name, found)
        return list(first.values())

    def notes(self, built: Built) -> tuple[str, ...]:
        """What cannot be held against the board, and how it is unlike the row of its target."""
        facts = self.board.facts
        missing = (f"not checked: {line}" for line in unchecked(built.artifact.manifest, facts))
        return (*missing, *differences(facts, built.item.target))

    def evidence(self, runtime: str, where: Mapping[str, str], command: str) -> Evidence:
        """That something was exported and brought to this board; no number yet."""
        return Evidence(
            rung=Rung.EXPORTED,
            place=self.board.place,
            stand_in=False,
            where={"runtime": runtime_package(runtime), **where, **self.board.where()},
            metrics={},
            samples=0,
            ci95=None,
            data_sha256=self.ways.data.probes_sha256,
            command=command,
            at=utc_now(),
        )


def read_built(
    items: Sequence[PlannedArtifact], ways: Ways
) -> tuple[list[Built], list[tuple[PlannedArtifact, EdgeshipError]]]:
    """What was built of a plan, and what was not, before any board is asked for."""
    found, absent = [], []
    for item in items:
        try:
            artifact = read_current(item, ways.workspace, ways.data)
        except EdgeshipError as error:
            absent.append((item, error))
        else:
            found.append(Built(item=item, artifact=artifact))
    return found, absent


def keep_evidence(artifact: Artifact, new: Evidence) -> Artifact:
    """The artifact with `new` in the place of what the same command said there before.

    There is the same runtime of the same device, and of several graphs the same.
    """

    def source(evidence: Evidence) -> tuple[object, ...]:
        where = (evidence.where.get(key) for key in ("runtime", "device", "graph"))
        return (evidence.command, evidence.place, *where)

    others = (item for item in artifact.manifest.evidence if source(item) != source(new))
    return artifact.with_evidence((*others, new))
