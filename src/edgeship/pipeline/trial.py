"""Trial: what was built, run on the boards of its targets; what they say becomes evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeship.budget import Judgement
from edgeship.device_tests.session import Devices, open_board
from edgeship.device_tests.smoke.result import SmokeRun
from edgeship.device_tests.smoke.run import smoke
from edgeship.errors import EdgeshipError, ExitCode
from edgeship.evidence import Evidence
from edgeship.latency import MemoryUse
from edgeship.limits import judge_boards
from edgeship.measurements import Failure
from edgeship.pipeline.board_sample import BoardSample
from edgeship.pipeline.outcome import judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.stand import Built, Stand, keep_evidence, read_built
from edgeship.pipeline.ways import open_ways
from edgeship.story import Story
from edgeship.targets.board_facts import FoundRuntime
from edgeship.vocabulary import Rung

COMMAND: Final = "edgeship test"
_DEADLINE_S: Final = 1800.0
"""A choice: of copying and running one artifact in one runtime; emulated boards are slow."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One artifact in one runtime of a board, or why it never got there.

    Attributes:
        item: What was planned.
        runtime: As manifests call it; None where none was tried.
        run: What the board said; None where none was tried.
        evidence: What became of it, as it stands in the manifest; not there if it was forced.
        judgements: What the budget says of the artifact with it.
        error: What kept it from the board.
        notes: What could not be checked, and how the board is unlike its row.
    """

    item: PlannedArtifact
    runtime: str | None = None
    run: SmokeRun | None = None
    evidence: Evidence | None = None
    judgements: tuple[Judgement, ...] = ()
    error: EdgeshipError | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies."""
        if self.error is not None:
            return [self.error.exit_code]
        return [judgement.exit_code for judgement in self.judgements]


def run_trials(
    plan: Plan, devices: Devices, story: Story, *, samples: int, forces: bool = False
) -> tuple[Trial, ...]:
    """Run every artifact of a plan in every runtime that its board has.

    What a board says takes the place of what the same runtime said there before.

    Args:
        plan: What was built.
        devices: That there are; see `open_board`.
        story: Told what is done.
        samples: Of the evaluation data, beside the golden pack.
        forces: Whether what the board does not seem to be able to run is tried all the same.

    Raises:
        RequirementMissing: A board cannot be reached, or was lost.
        ConfigurationError: No such device.
    """
    trials: list[Trial] = []
    with open_ways(plan, story) as ways:
        for target in dict.fromkeys(item.target.name for item in plan.artifacts):
            items = [item for item in plan.artifacts if item.target.name == target]
            found, absent = read_built(items, ways)
            trials += [Trial(item=item, error=error) for item, error in absent]
            known = {built.item.name: ways.way(built.item).board_sample(samples) for built in found}
            if not found:
                continue
            with open_board(items[0].target, devices, story, forces=forces) as board:
                stand = Stand(board=board, ways=ways, story=story, forces=forces)
                for built in found:
                    trials += _trials(stand, built, found, known)
    return tuple(trials)


def _trials(
    stand: Stand, built: Built, others: Sequence[Built], known: Mapping[str, BoardSample | None]
) -> Iterator[Trial]:
    """One for each runtime; one alone where the board cannot run it."""
    item, artifact, notes = built.item, built.artifact, stand.notes(built)
    try:
        wrong = stand.misfits(built, others)
    except EdgeshipError as error:
        yield Trial(item=item, error=error, notes=notes)
        return
    for found in stand.runtimes(built):
        sample = known[item.name]
        run = _run(stand, built, found, sample)
        evidence = _evidence(stand, sample, run)
        if wrong:
            lacking = "; ".join(problem.what for problem in wrong)
            note = f"forced, and so not kept as evidence: {lacking}"
            yield Trial(
                item=item,
                runtime=found.name,
                run=run,
                evidence=evidence,
                judgements=tuple(judge_boards((evidence,))),
                notes=(note, *notes),
            )
            continue
        artifact = keep_evidence(artifact, evidence)
        yield Trial(
            item=item,
            runtime=found.name,
            run=run,
            evidence=evidence,
            judgements=judge(stand.ways.plan.project, item, artifact),
            notes=notes,
        )


def _run(stand: Stand, built: Built, found: FoundRuntime, sample: BoardSample | None) -> SmokeRun:
    board, item = stand.board, built.item
    with (
        stand.story.stage("test", f"{item.name} in {found.name} on {board.device.name}"),
        stand.directory(f"{item.format}-{item.recipe.precision}-{found.name}") as directory,
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
