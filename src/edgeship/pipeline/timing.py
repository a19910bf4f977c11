"""Timing: what was built, timed on a board, or its instructions counted on an emulated one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edgeship.device_tests.bench.plan import Plan as BenchPlan
from edgeship.device_tests.bench.run import BenchRun, WorkRun, bench, work
from edgeship.device_tests.session import Devices
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence
from edgeship.measurements import Failure
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.stand import Built, Stand
from edgeship.pipeline.visit import Visit, visit_boards
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
class Timing(Visit):
    """See `Visit`.

    Attributes:
        reasons: Why a latency is not valid, or why there is none.
    """

    reasons: tuple[str, ...] = ()

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies; 7 where a device was timed and the latency is not valid."""
        latency = None if self.evidence is None else self.evidence.latency
        is_invalid = latency is not None and not latency.is_valid
        return [*super().exit_codes, *([ExitCode.MEASUREMENT_INVALID] if is_invalid else [])]


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

    An emulated board counts instructions instead, on one thread. A board that is lost is the error
    of the artifacts that it did not answer for.

    Args:
        plan: What was built.
        devices: That there are; see `open_board`.
        story: Told what is done.
        how: How much is measured on a device.
        threads: Of the runtime, on a device.
        forces: Whether what the board does not seem to be able to run is tried all the same.

    Raises:
        ConfigurationError: No such device, or several that would do; nothing was run then.
    """
    clock = _Clock(how=how, threads=threads)
    return visit_boards(
        plan, devices, story, Timing, lambda *_: clock.timing, counts=True, forces=forces
    )


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """How boards are timed."""

    how: BenchPlan
    threads: int

    def timing(self, stand: Stand, built: Built, found: FoundRuntime) -> Timing:
        """One artifact in one runtime."""
        run = self._run(stand, built, found)
        return Timing(
            item=built.item,
            runtime=found.name,
            evidence=_evidence(stand, found.name, run),
            reasons=run.reasons if isinstance(run, BenchRun) else (),
        )

    def _run(self, stand: Stand, built: Built, found: FoundRuntime) -> BenchRun | WorkRun:
        board, item = stand.board, built.item
        with (
            stand.story.stage("bench", f"{item.name} in {found.name} on {board.device.name}"),
            board.folder(f"{item.format}-{item.recipe.precision}-{found.name}") as path,
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


def _evidence(stand: Stand, runtime: str, run: BenchRun | WorkRun) -> Evidence:
    evidence = stand.evidence(runtime, run.runtime, COMMAND)
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
