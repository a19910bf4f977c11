"""Observation: samples of the project through a Lowered file, into Statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeship.calibration.observe import Statistics, observe
from edgeship.calibration.samples import SampleSet
from edgeship.contract import TensorSpec
from edgeship.exporters.protocol import Lowered
from edgeship.runtimes.adapter import encode_inputs
from edgeship.runtimes.protocol import load_observer

if TYPE_CHECKING:
    import numpy as np


def observe_lowered(
    lowered: Lowered,
    inputs: Sequence[TensorSpec],
    samples: SampleSet,
    chosen: Sequence[int],
    progress: Callable[[int, int], None],
) -> Statistics:
    """Statistics of every tensor in `lowered.observed`.

    Args:
        lowered: What is run.
        inputs: Of the float model, for which the samples are.
        samples: Of the project.
        chosen: Indices of those to run, in this order.
        progress: Told (done, all) after each sample.

    Raises:
        ConfigurationError: A tensor became NaN or infinite, naming the sample.
    """

    def feed() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for done, index in enumerate(chosen):
            sample = samples.load(index)
            yield (
                samples.samples[index].name,
                encode_inputs(sample.inputs, inputs, lowered.contract),
            )
            progress(done + 1, len(chosen))

    with load_observer(lowered.runtime).observe(lowered.file, lowered.observed) as session:
        return observe(feed(), session.run, lowered.layout)
