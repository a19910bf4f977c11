"""Candidate: an artifact made of a rewritten model for its measurement alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import solve_ranges
from edgeship.calibration.samples import select_samples
from edgeship.evaluate.signal import signal_to_error_db
from edgeship.evaluate.speed import SpeedRatio, compare_speed
from edgeship.exporters.protocol import Exporter, Source
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.observation import observe_lowered
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.stages import host_file
from edgeship.runtimes.adapter import FloatSession
from edgeship.runtimes.protocol import load_runtime
from edgeship.story import ignore_progress

if TYPE_CHECKING:
    import numpy as np

    from edgeship.source.model import Model

OBSERVED: Final = 64
"""Samples that a candidate's ranges are of."""
HELD: Final = 32
"""Samples that it is measured on: others than those, where there are so many."""
_PROBES: Final = 2


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What candidates are made and measured with: some of the representative samples.

    Attributes:
        observed: Indices of samples for ranges, in digest order.
        held: Indices of those to measure on.
    """

    data: ProjectData
    observed: Sequence[int]
    held: Sequence[int]

    @classmethod
    def of(cls, data: ProjectData, count: int) -> Trials:
        """Of the first `count` representative samples in digest order: no evaluation data."""
        chosen = select_samples(data.calibration.samples, min(count, OBSERVED + HELD))
        if len(chosen) <= HELD:
            return cls(data=data, observed=chosen, held=chosen)
        return cls(data=data, observed=chosen[: len(chosen) - HELD], held=chosen[-HELD:])

    def inputs(self, indices: Sequence[int]) -> list[Mapping[str, np.ndarray]]:
        """Of these samples, as the float model takes them."""
        return [self.data.calibration.load(index).inputs for index in indices]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An artifact that was made of a model and measured on this host.

    Attributes:
        session: Takes and gives what the float model does.
        sqnr_db: Of its outputs against those of the model before any rewrite.
    """

    session: FloatSession
    sqnr_db: float


def make_candidate(
    model: Model,
    expected: Sequence[Mapping[str, np.ndarray]],
    *,
    trials: Trials,
    item: PlannedArtifact,
    exporter: Exporter,
    checkpoint: Path,
    directory: Path,
) -> Candidate:
    """Lower, observe, solve, emit and run, all on a few samples.

    Args:
        model: Float, rewritten or not.
        expected: Outputs of the original model for the held samples.
        trials: The samples.
        item: The artifact that it would become.
        exporter: Of its format.
        checkpoint: Of the project.
        directory: Empty; the session reads from it.

    Raises:
        ExportFailed: It cannot be made.
    """
    lowering, emission = directory / "lower", directory / "emit"
    lowering.mkdir()
    emission.mkdir()
    source = Source(
        load=lambda: model,
        read_probes=lambda: trials.inputs(trials.held[:_PROBES]),
        checkpoint=checkpoint,
    )
    lowered = exporter.lower(source, lowering)
    inputs = model.contract.inputs
    samples = trials.data.calibration
    statistics = observe_lowered(lowered, inputs, samples, trials.observed, ignore_progress)
    ranges = solve_ranges(statistics, item.ranges)
    payload = exporter.emit(lowered, ranges, item.recipe, item.target, emission)
    stand_in = exporter.tools.stand_in
    opened = load_runtime(stand_in or payload.requires.any_of[0].runtime).open(
        host_file(emission, payload, stand_in), threads=1
    )
    session = FloatSession(opened, inputs, payload.contract)
    found = [session.run(sample) for sample in trials.inputs(trials.held)]
    return Candidate(session=session, sqnr_db=signal_to_error_db(expected, found))


def speed_of(candidate: Candidate, other: Candidate, trials: Trials) -> SpeedRatio:
    """CPU time of one over that of another, run in turns on this host."""
    (sample,) = trials.inputs(trials.held[:1])
    return compare_speed(lambda: candidate.session.run(sample), lambda: other.session.run(sample))
