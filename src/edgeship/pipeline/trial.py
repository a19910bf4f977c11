"""Trial: what was built, run on the boards of its targets; what they say becomes evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeship.device_tests.session import Devices
from edgeship.device_tests.smoke.result import SmokeRun
from edgeship.device_tests.smoke.run import smoke
from edgeship.evidence import Evidence
from edgeship.latency import MemoryUse
from edgeship.measurements import Failure
from edgeship.pipeline.board_sample import BoardSample
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.stand import Built, Stand
from edgeship.pipeline.visit import Visit, Work, visit_boards
from edgeship.pipeline.ways import Ways
from edgeship.story import Story
from edgeship.targets.board_facts import FoundRuntime
from edgeship.vocabulary import Rung

COMMAND: Final = "edgeship test"
_DEADLINE_S: Final = 1800.0
"""A choice: of copying and running one artifact in one runtime; emulated boards are slow."""


@dataclass(frozen=True, kw_only=True)
class Trial(Visit):
    """See `Visit`.

    Attributes:
        run: What the board said; None where none was tried.
    """

    run: SmokeRun | None = None


def run_trials(
    plan: Plan, devices: Devices, story: Story, *, samples: int, forces: bool = False
) -> tuple[Trial, ...]:
    """Run every artifact of a plan in every runtime that its board has.

    What a board says takes the place of what the same runtime said there before. A board that is
    lost is the error of the artifacts that it did not answer for.

    Args:
        plan: What was built.
        devices: That there are; see `open_board`.
        story: Told what is done.
        samples: Of the evaluation data, beside the golden pack.
        forces: Whether what the board does not seem to be able to run is tried all the same.

    Raises:
        ConfigurationError: No such device, or several that would do; nothing was run then.
    """

    def prepare(ways: Ways, found: Sequence[Built]) -> Work[Trial]:
        known = {built.item.name: ways.way(built.item).board_sample(samples) for built in found}
        return lambda stand, built, runtime: _trial(stand, built, runtime, known[built.item.name])

    return visit_boards(plan, devices, story, Trial, prepare, forces=forces)


def _trial(stand: Stand, built: Built, found: FoundRuntime, sample: BoardSample | None) -> Trial:
    run = _run(stand, built, found, sample)
    evidence = _evidence(stand, sample, run)
    return Trial(item=built.item, runtime=found.name, run=run, evidence=evidence)


def _run(stand: Stand, built: Built, found: FoundRuntime, sample: BoardSample | None) -> SmokeRun:
    board, item = stand.board, built.item
    with (
        stand.story.stage("test", f"{item.name} in {found.name} on {board.device.name}"),
        stand.board.folder(f"{item.format}-{item.recipe.precision}-{found.name}") as directory,
    ):
        return smoke(
            board.connection,
            directory,
            built.artifact,
            board.facts,
            runtime=found.name,
            sample=None if sample is None else sample.sample(),
            deadline_s=_DEADLINE_S,
            python=board.device.python,
            environment=board.environment,
            program=found.path,
        )


def _evidence(stand: Stand, sample: BoardSample | None, run: SmokeRun) -> Evidence:
    """The golden pack says whether it matches: a share of few samples moves by chance."""
    rung = Rung.EXPORTED
    if run.cases:
        rung = Rung.MATCHES if run.is_ok else Rung.RUNS  # wrong outputs are outputs
    evidence = replace(
        stand.evidence(run.runtime, run.where, COMMAND),
        samples=len({case.case for case in run.cases} - {"all"}),
        memory=_memory(run),
        failure=None if run.is_ok else Failure(outcome=run.outcome, detail=run.sentence),
    )
    if sample is not None and run.outputs:
        evidence = sample.measured(evidence, run.outputs, stand.ways.plan.project, stand.ways.data)
    return replace(evidence, rung=rung)


def _memory(run: SmokeRun) -> MemoryUse | None:
    if run.peak_bytes is None or run.imported_bytes is None:
        return None
    return MemoryUse(peak_bytes=run.peak_bytes, imported_bytes=run.imported_bytes)
