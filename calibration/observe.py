"""One streaming pass: samples through a runtime that yields named tensors, into Statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.calibration.statistics import TensorStatistics, empty_statistics
from edgeship.errors import ConfigurationError, Problem
from edgeship.vocabulary import Layout

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Inputs by name to every observed tensor by name, for one sample."""

_STACK_BYTES: Final = 16 << 20
"""Activations that are held at once: memory is bounded by them, and by one sample's own."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One sample's tensors, with the sample's name for errors."""

    name: str
    tensors: Mapping[str, np.ndarray]


def observe(
    samples: Iterator[tuple[str, Mapping[str, np.ndarray]]],
    run: Run,
    layout: Layout = Layout.NCHW,
) -> Statistics:
    """Statistics of every float tensor that `run` yields, over all samples in their order.

    Args:
        samples: Name and inputs of each, in digest order; consumed one at a time.
        run: Runs one sample; the inputs themselves are observed too.
        layout: Axis order of images in the file that `run` runs.

    Returns:
        Statistics by tensor name.

    Raises:
        ConfigurationError: No sample, or a tensor that is NaN or +inf, naming the sample; -inf is
            what masks hold.
    """
    statistics: Statistics = {}
    stack: list[Observed] = []
    held = 0
    for name, inputs in samples:
        tensors = {**inputs, **run(inputs)}
        stack.append(Observed(name=name, tensors=tensors))
        held += sum(tensor.nbytes for tensor in tensors.values())
        if held >= _STACK_BYTES:
            _take_in(statistics, stack, layout)
            stack, held = [], 0
    _take_in(statistics, stack, layout)
    if not statistics:
        problem = Problem(
            where="calibration",
            what="the representative data is empty",
            expected="at least one sample",
            found="none",
            remedy="add samples",
        )
        raise ConfigurationError(problem)
    return statistics


Statistics = dict[str, TensorStatistics]


def channel_axis(rank: int, layout: Layout = Layout.NCHW) -> int:
    """Axis of the channels of an activation with its batch axis first.

    ONNX operators take images as N, C, H, W, those of TFLite as N, H, W, C; everything of lower
    rank ends in its features.
    """
    return 1 if rank >= 4 and layout is Layout.NCHW else max(rank - 1, 0)


def position_axis(shape: Sequence[int]) -> int | None:
    """Axis of the tokens of an activation, or of an image's patches; None where there is none.

    It is the one before the features in [1, T, C] and in [T, C], to which converters flatten it.
    A first axis of another length than 1 is that of heads: what they hold is no token.
    """
    is_sequence = len(shape) in {2, 3} and shape[-2] > 1 and all(size == 1 for size in shape[:-2])
    return len(shape) - 2 if is_sequence else None


def _take_in(statistics: Statistics, stack: Sequence[Observed], layout: Layout) -> None:
    if not stack:
        return
    for name, first in stack[0].tensors.items():
        if first.dtype != np.float32:
            continue
        values = np.stack([observed.tensors[name] for observed in stack])
        axis = 1 + channel_axis(first.ndim, layout)
        tokens = position_axis(first.shape)
        if first.ndim == 0:
            values = values[:, np.newaxis]
        if name not in statistics:
            positions = 0 if tokens is None else first.shape[tokens]
            statistics[name] = empty_statistics(values.shape[axis], positions)
        before = statistics[name].nonfinite
        statistics[name].add(values, axis, None if tokens is None else 1 + tokens)
        if statistics[name].nonfinite > before:
            raise _not_finite(name, stack)


def _not_finite(tensor: str, stack: Sequence[Observed]) -> ConfigurationError:
    """Names the first sample in the stack in which the tensor is not finite."""
    for observed in stack:
        values = observed.tensors[tensor]
        bad = int((np.isnan(values) | np.isposinf(values)).sum())
        if bad:
            problem = Problem(
                where=f"calibration sample {observed.name}",
                what=f"tensor {tensor!r} becomes NaN or infinite",
                expected="finite numbers",
                found=f"{bad} of {values.size} values",
                remedy="remove the sample, or mend the weights before that tensor",
            )
            return ConfigurationError(problem)
    raise AssertionError(tensor)  # the caller counted one
