"""Timing: what was built, timed on a board, or its instructions counted on an emulated one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeship.budget import Judgement
from edgeship.device_tests.bench.plan import Plan as BenchPlan
from edgeship.device_tests.bench.run import BenchRun, WorkRun, bench, work
from edgeship.device_tests.session import Devices, open_board
from edgeship.errors import EdgeshipError, ExitCode
from edgeship.evidence import Evidence
from edgeship.measurements import Failure
from edgeship.pipeline.outcome import judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.stand import Built, Stand, keep_evidence, read_built
from edgeship.pipeline.ways import open_ways
from edgeship.story import Story
from edgeship.targets.board_facts import FoundRuntime
from edgeship.vocabulary import Rung

COMMAND: Final = "edgeship bench"
_COPY_S: Final = 900.0
"""A choice: of copying and loading, beside what the plan takes."""
_COUNT_S: Final = 3600.0
"""A choice: counting takes a hundred times as long as running (measured: 1 s for 10 million)."""
_OK: Final = "ok"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One artifact in one runtime of a board, or why it never got there.

    Attributes:
        item: What was planned.
        runtime: As manifests call it; None where none was tried.
        evidence: What became of it, as it stands in the manifest; not there if it was forced.
        reasons: Why a latency is not valid, or why there is none.
        judgements: What the budget says of the artifact with it.
        error: What kept it from the board.
    """

    item: PlannedArtifact
    runtime: str | None = None
    evidence: Evidence | None = None
    reasons: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    error: EdgeshipError | None = None

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies; 7 where a device was timed and the latency is not valid."""
        if self.error is not None:
            return [self.error.exit_code]
        latency = None if self.evidence is None else self.evidence.latency
        is_invalid = latency is not None and not latency.is_valid
        codes = [judgement.exit_code for judgement in self.judgements]
        return [*codes, *([ExitCode.MEASUREMENT_INVALID] if is_invalid else [])]


def run_timings(
    plan: Plan,
    devices: Devices,
    story: Story,
    *,
    how: BenchPlan,
    threads: int,
    forces: bool = False,
) -> tuple[Timing, ...]:
    """Time every artifact of a plan in every runtime that its board has.

    An emulated board counts instructions instead, on one thread.

    Args:
        plan: What was built.
        devices: That there are; see `open_board`.
        story: Told what is done.
        how: How much is measured on a device.
        threads: Of the runtime, on a device.
        forces: Whether what the board does not seem to be able to run is tried all the same.

    Raises:
        RequirementMissing: A board cannot be reached, or was lost.
        ConfigurationError: No such device.
    """
    timings: list[Timing] = []
    with open_ways(plan, story) as ways:
        for target in dict.fromkeys(item.target.name for item in plan.artifacts):
            items = [item for item in plan.artifacts if item.target.name == target]
            found, absent = read_built(items, ways)
            timings += [Timing(item=item, error=error) for item, error in absent]
            if not found:
                continue
            first = items[0].target
            with open_board(first, devices, story, counts=True, forces=forces) as board:
                stand = Stand(board=board, ways=ways, story=story, forces=forces)
                clock = _Clock(stand=stand, how=how, threads=threads)
                for built in found:
                    timings += clock.timings(built, found)
    return tuple(timings)


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """One board, and how it is timed."""

    stand: Stand
    how: BenchPlan
    threads: int

    def timings(self, built: Built, others: Sequence[Built]) -> Iterator[Timing]:
        """One for each runtime; one alone where the board cannot run it."""
        item, artifact = built.item, built.artifact
        try:
            wrong = self.stand.misfits(built, others)
        except EdgeshipError as error:
            yield Timing(item=item, error=error)
            return
        for found in self.stand.runtimes(built):
            run = self._run(built, found)
            evidence = self._evidence(found.name, run)
            if not wrong:
                artifact = keep_evidence(artifact, evidence)
            yield Timing(
                item=item,
                runtime=found.name,
                evidence=evidence,
                reasons=run.reasons if isinstance(run, BenchRun) else (),
                judgements=judge(self.stand.ways.plan.project, item, artifact),
            )

    def _run(self, built: Built, found: FoundRuntime) -> BenchRun | WorkRun:
        board, item = self.stand.board, built.item
        with (
            self.stand.story.stage("bench", f"{item.name} in {found.name} on {board.device.name}"),
            self.stand.directory(f"{item.format}-{item.recipe.precision}-{found.name}") as path,
        ):
            if board.is_counting and board.emulation is not None:
                return work(
                    board.connection,
                    path,
                    built.artifact,
                    runtime=found.name,
                    cpu=board.emulation.cpu,
                    deadline_s=_COUNT_S,
                    python=board.device.python,
                    environment=board.environment,
                    program=found.path,
                )
            return bench(
                board.connection,
                path,
                built.artifact,
                runtime=found.name,
                plan=self.how,
                deadline_s=self.how.limit_s + _COPY_S,
                threads=self.threads,
                python=board.device.python,
                environment=board.environment,
                program=found.path,
                place=board.place,
            )

    def _evidence(self, runtime: str, run: BenchRun | WorkRun) -> Evidence:
        evidence = self.stand.evidence(runtime, run.runtime, COMMAND)
        if run.outcome != _OK:
            detail = f"{runtime}: {run.outcome}: {run.message or 'no more is known'}"
            return replace(evidence, failure=Failure(outcome=run.outcome, detail=detail))
        if isinstance(run, WorkRun):
            return replace(evidence, rung=Rung.TIMED, work=run.work, samples=1)
        is_timed = run.latency is not None and run.latency.is_valid
        return replace(
            evidence,
            rung=Rung.TIMED if is_timed else Rung.RUNS,
            latency=run.latency,
            memory=run.memory,
            samples=1,
        )
