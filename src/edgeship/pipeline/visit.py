"""Visit: what was built, brought to the boards of its targets, one artifact after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edgeship.artifact import Artifact
from edgeship.budget import Judgement
from edgeship.device_tests.session import Devices, choose_device, open_board
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.errors import EdgeshipError, ExitCode, IntegrityRefused, Problem
from edgeship.evidence import Evidence
from edgeship.limits import judge_boards
from edgeship.pipeline.outcome import judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.stand import Built, Stand, keep_evidence, read_built
from edgeship.pipeline.ways import Ways, open_ways
from edgeship.story import Story
from edgeship.targets import Target
from edgeship.targets.board_facts import FoundRuntime


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One artifact in one runtime of a board, or why it never got there.

    Attributes:
        item: What was planned.
        runtime: As manifests call it; None where none was tried.
        evidence: What became of it, as it stands in the manifest; not there if it was forced.
        judgements: What the budget says of the artifact with it.
        error: What kept it from the board, ended its work there, or was left there afterwards.
        notes: What could not be checked, and how the board is unlike its row.
    """

    item: PlannedArtifact
    runtime: str | None = None
    evidence: Evidence | None = None
    judgements: tuple[Judgement, ...] = ()
    error: EdgeshipError | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies."""
        own = [] if self.error is None else [self.error.exit_code]
        return [*own, *(judgement.exit_code for judgement in self.judgements)]


V = TypeVar("V", bound=Visit)
Work = Callable[[Stand, Built, FoundRuntime], V]
"""Runs one artifact in one runtime of a board: item, runtime and evidence, nothing judged yet."""


def visit_boards(
    plan: Plan,
    devices: Devices,
    story: Story,
    kind: type[V],
    prepare: Callable[[Ways, Sequence[Built]], Work[V]],
    *,
    counts: bool = False,
    forces: bool = False,
) -> tuple[V, ...]:
    """Bring every artifact of a plan to its board, in every runtime that it has.

    What one board said stays, whatever becomes of the next artifact or board: a board that cannot
    be reached, or is lost, is the error of the artifacts that it did not answer for.

    Args:
        plan: What was built.
        devices: That there are; see `open_board`.
        story: Told what is done.
        kind: Of visit.
        prepare: Makes what is needed for the artifacts of one target, before its board is asked.
        counts: Emulated boards are to count instructions.
        forces: Whether what the board does not seem to be able to run is tried all the same.

    Raises:
        ConfigurationError: No such device, or several that would do; nothing was run then.
    """
    targets = {item.target.name: item.target for item in plan.artifacts}
    for name in targets:
        choose_device(name, devices)
    visits: list[V] = []
    with open_ways(plan, story) as ways:
        tour = _Tour(
            ways=ways, devices=devices, kind=kind, prepare=prepare, counts=counts, forces=forces
        )
        for target in targets.values():
            items = [item for item in plan.artifacts if item.target.name == target.name]
            found, absent = read_built(items, ways)
            visits += [kind(item=item, error=error) for item, error in absent]
            visits += tour.visits(target, found, story) if found else []
    return tuple(visits)


@dataclass(frozen=True, kw_only=True)
class _Tour(Generic[V]):
    """See `visit_boards`."""

    ways: Ways
    devices: Devices
    kind: type[V]
    prepare: Callable[[Ways, Sequence[Built]], Work[V]]
    counts: bool
    forces: bool

    def visits(self, target: Target, found: Sequence[Built], story: Story) -> list[V]:
        """All of one target's."""
        visits: list[V] = []
        try:
            work = self.prepare(self.ways, found)
            with open_board(
                target, self.devices, story, counts=self.counts, forces=self.forces
            ) as board:
                stand = Stand(board=board, ways=self.ways, story=story, forces=self.forces)
                for built in found:
                    self._visit(stand, built, found, work, visits)
        except EdgeshipError as error:
            if visits:  # what it was lost in, or what was over when something stayed on the board
                visits[-1] = replace(visits[-1], error=_joined(visits[-1].error, error))
            met = {visit.item.name for visit in visits}
            rest = [built.item for built in found if built.item.name not in met]
            visits += [self.kind(item=item, error=error) for item in rest]
        return visits

    def _visit(
        self,
        stand: Stand,
        built: Built,
        others: Sequence[Built],
        work: Work[V],
        visits: list[V],
    ) -> None:
        """Add one for each runtime; one alone where the board cannot run it.

        Raises:
            ConnectionFailed: The board was lost; the visit that met it is there.
        """
        item, artifact, notes = built.item, built.artifact, stand.notes(built)
        try:
            wrong = stand.misfits(built, others)
            runtimes = stand.runtimes(built)
            if not runtimes:  # nothing to force
                raise IntegrityRefused(*wrong)
        except EdgeshipError as error:
            visits.append(self.kind(item=item, error=error, notes=notes))
            return
        first = len(visits)
        try:
            for found in runtimes:
                artifact = self._run(stand, built, artifact, found, work, (wrong, notes), visits)
        finally:  # also of a board that was lost: by all that it said until then
            if not wrong:
                judgements = judge(stand.ways.plan.project, item, artifact)
                visits[first:] = [
                    visit if visit.evidence is None else replace(visit, judgements=judgements)
                    for visit in visits[first:]
                ]

    def _run(
        self,
        stand: Stand,
        built: Built,
        artifact: Artifact,
        found: FoundRuntime,
        work: Work[V],
        known: tuple[Sequence[Problem], tuple[str, ...]],
        visits: list[V],
    ) -> Artifact:
        """Add the visit of one runtime; the artifact with what it said.

        `known` is why nothing is kept, where it is forced, and the notes.

        Raises:
            ConnectionFailed: The board was lost; the visit that met it is there.
        """
        wrong, notes = known
        try:
            visit = work(stand, built, found)
        except EdgeshipError as error:
            visits.append(self.kind(item=built.item, runtime=found.name, error=error, notes=notes))
            if isinstance(error, ConnectionFailed):
                raise
            return artifact
        assert visit.evidence is not None  # see Work
        if wrong:
            judgements = tuple(judge_boards((visit.evidence,)))
            notes = (_forced_note(wrong), *notes)
            visits.append(replace(visit, judgements=judgements, notes=notes))
            return artifact
        visits.append(replace(visit, notes=notes))
        return keep_evidence(artifact, visit.evidence)


def _forced_note(wrong: Sequence[Problem]) -> str:
    lacking = "; ".join(problem.what for problem in wrong)
    return f"forced, and so not kept as evidence: {lacking}"


def _joined(first: EdgeshipError | None, second: EdgeshipError) -> EdgeshipError:
    """The second one, with what it does not say already of the first."""
    if first is None or set(first.problems) <= set(second.problems):
        return second
    return ConnectionFailed(*first.problems, *second.problems)
