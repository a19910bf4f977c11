"""Equalization: which rewrites a float model gets before an integer artifact is made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.calibration.equalize.rewrite import (
    REWRITES,
    Gain,
    NothingToRewrite,
    Rewrite,
    Use,
    load_rewrite,
)
from edgeship.errors import EdgeshipError
from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.candidate import Candidate, Trials, make_candidate, speed_of
from edgeship.pipeline.equalized import PROGRAM_NAME, Equalized, Step
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.story import Progress
from edgeship.vocabulary import Format, RewriteName

if TYPE_CHECKING:
    from edgeship.calibration.equalize.attempt import Attempt
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.source.model import Model

BETTER_DB: Final = 1.0
"""What "auto" asks of a rewrite for accuracy: an error with a fifth less power. Two choices of the
calibration samples alone moved ResNet-20 by up to this."""
_MUCH_BETTER_DB: Final = 3.0
"""The same of one that changes the float function: half the error. Bias correction gained 1.2 dB on
MobileNet 0.25 for TensorRT, and lost 0.2 points of top-1."""
_DB_FOR_TIME: Final = 10.0
"""Of each tenth of its time that an artifact takes longer, one more dB is asked. A choice."""
_UNCHANGED_DB: Final = 1.0
"""What a rewrite for speed may cost."""
_FASTER: Final = 0.95
"""Largest ratio of CPU times, in its upper quartile, that counts as faster."""
_LEARNT_FROM: Final = 32
"""Samples that a rewrite learns from: with 16, SmoothQuant's scales fit them and no others."""
_PROOFS: Final = 8
"""Samples that it is proven on, others than those where there are so many."""


def write_equalized(
    item: PlannedArtifact,
    exporter: Exporter,
    model: Model,
    *,
    checkpoint: Path,
    trials: Trials,
    directory: Path,
    progress: Progress,
) -> None:
    """Model + a few representative samples -> what became of each rewrite, and the program."""
    equalizer = Equalizer(item, exporter, model=model, checkpoint=checkpoint, trials=trials)
    equalized, program = equalizer.equalize(progress)
    equalized.write(directory)
    if program is not None:
        program.save(directory / PROGRAM_NAME)


def load_rewritten(directory: Path, model: Model) -> Model:
    """The model with the program that `write_equalized` left in its place."""
    from edgeship.source.program import load_program

    return replace(model, module=load_program(directory / PROGRAM_NAME, model.contract.inputs))


class Equalizer:
    """Tries rewrites on one artifact's model, one after the other, each upon those before it."""

    def __init__(
        self,
        item: PlannedArtifact,
        exporter: Exporter,
        *,
        model: Model,
        checkpoint: Path,
        trials: Trials,
    ) -> None:
        self._item = item
        self._exporter = exporter
        self._model = model
        self._checkpoint = checkpoint
        self._trials = trials
        self._use = Use(
            format=item.format,
            target=item.target,
            is_symmetric=item.format is Format.TENSORRT,
            kept_modules=tuple(
                rule.match for rule in item.recipe.rules if rule.precision != "int8"
            ),
        )

    def equalize(self, progress: Progress) -> tuple[Equalized, FloatProgram | None]:
        """What became of each rewrite, and the program where one was kept.

        Raises:
            ExportFailed: torch.export refuses the model, and rewrites are asked for by name.
        """
        from edgeship.calibration.equalize.program import float_program

        wanted = self._item.equalize.names
        names = [name for name in REWRITES if wanted is None or name in wanted]
        if not names:
            return Equalized(), None
        try:
            program = float_program(self._model)
        except EdgeshipError as error:
            if wanted is not None:
                raise
            problem = error.problems[0]
            step = Step(name=None, is_kept=False, lines=(f"{problem.what}: {problem.found}",))
            return Equalized(steps=(step,)), None
        original, steps = program, []
        with ExitStack() as stack:
            measured = _Measured(self, stack) if wanted is None else None
            for done, name in enumerate(names):
                for step, better in self._tried(name, program, measured):
                    steps.append(step)
                    program = better or program
                progress(done + 1, len(names))
        return Equalized(steps=tuple(steps)), None if program is original else program

    def _tried(
        self, name: RewriteName, program: FloatProgram, measured: _Measured | None
    ) -> Iterator[tuple[Step, FloatProgram | None]]:
        """At most one step; none where "auto" has nothing to say of it."""
        from edgeship.calibration.equalize.attempt import attempt

        rewrite = load_rewrite(name)
        problems = tuple(rewrite.problems(self._use))
        if problems:
            if measured is None:
                yield Step(name=name, is_kept=False, lines=problems), None
            return
        try:
            samples = self._trials.inputs(self._trials.observed[:_LEARNT_FROM])
            proofs = self._trials.inputs(self._trials.held[:_PROOFS])
            found = attempt(rewrite, program, samples, self._use, proofs=proofs)
            step = _step(name, found) if measured is None else measured.judge(rewrite, found)
        except NothingToRewrite as reason:
            yield Step(name=name, is_kept=False, lines=(str(reason),)), None
        except EdgeshipError as error:
            line = f"it cannot be made: {error.problems[0].what}: {error.problems[0].found}"
            yield Step(name=name, is_kept=False, lines=(line,)), None
        else:
            yield step, found.program if step.is_kept else None

    def candidate(self, model: Model, directory: Path) -> Candidate:
        """See `make_candidate`."""
        return make_candidate(
            model,
            [self._model.run(inputs) for inputs in self._trials.inputs(self._trials.held)],
            trials=self._trials,
            item=self._item,
            exporter=self._exporter,
            checkpoint=self._checkpoint,
            directory=directory,
        )

    def best(self, stack: ExitStack) -> Candidate:
        """Of the model as it is."""
        return self.candidate(self._model, self.scratch(stack))

    def scratch(self, stack: ExitStack) -> Path:
        """A directory that lasts as long as the choice."""
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeship-equalize-")))

    def speed(self, candidate: Candidate, other: Candidate) -> tuple[float, bool]:
        """Ratio of CPU times, and whether the first one is certainly faster."""
        found = speed_of(candidate, other, self._trials)
        return found.ratio, found.spread[1] <= _FASTER


class _Measured:
    """The best candidate so far; the first one is made when there is something to compare."""

    def __init__(self, equalizer: Equalizer, stack: ExitStack) -> None:
        self._equalizer = equalizer
        self._stack = stack
        self._best: Candidate | None = None

    def judge(self, rewrite: Rewrite, found: Attempt) -> Step:
        """Whether the artifact is better with it."""
        if self._best is None:
            self._best = self._equalizer.best(self._stack)
        before = self._best
        directory = self._equalizer.scratch(self._stack)
        after = self._equalizer.candidate(found.program.model, directory)
        ratio, is_faster = self._equalizer.speed(after, before)
        if rewrite.gain is Gain.ACCURACY:
            asked = BETTER_DB if rewrite.is_exact else _MUCH_BETTER_DB
            asked += _DB_FOR_TIME * max(0.0, ratio - 1)
            is_kept = after.sqnr_db >= before.sqnr_db + asked
        else:
            is_kept = is_faster and after.sqnr_db >= before.sqnr_db - _UNCHANGED_DB
        if is_kept:
            self._best = after
        return _step(
            rewrite.name,
            found,
            is_kept=is_kept,
            before_db=before.sqnr_db,
            after_db=after.sqnr_db,
            time_ratio=ratio,
            is_faster=is_faster if rewrite.gain is Gain.SPEED else None,
        )


def _step(
    name: RewriteName,
    found: Attempt,
    *,
    is_kept: bool = True,
    before_db: float | None = None,
    after_db: float | None = None,
    time_ratio: float | None = None,
    is_faster: bool | None = None,
) -> Step:
    return Step(
        name=name,
        is_kept=is_kept,
        lines=found.lines,
        float_difference=found.difference,
        before_db=before_db,
        after_db=after_db,
        time_ratio=time_ratio,
        is_faster=is_faster,
    )
