"""Noise: what rounding to 8 bits costs the layers that read a space, by a model of it.

An activation has one step for all its channels, a weight one for each output. Errors of rounding
are taken as independent of the values and of each other, with a variance of a twelfth of a squared
step (Widrow and Kollar, "Quantization Noise", 2008); so are the inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from edgeship.calibration.equalize.cross_layer.observation import Channels

_WEIGHT_LEVELS: Final = 127
_SYMMETRIC_LEVELS: Final = 127
_LEVELS: Final = 255
_VARIANCE: Final = 12
"""A step squared over the variance of what rounding to it takes away."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What a layer multiplies the channels of a space by.

    Attributes:
        peaks: float64[groups, outputs, channels]: largest magnitude over its kernel.
        energy: Of the same shape: sum of squares over its kernel.
        kernel: Number of weights by which an output reads a channel.
        power: Mean square of each channel as the layer reads it, float64[all channels].
    """

    peaks: Tensor
    energy: Tensor
    kernel: int
    power: Tensor

    @classmethod
    def of(cls, rows: Tensor, power: Tensor) -> Reader:
        """Of float[groups, outputs, channels, kernel], the channels of all groups in order."""
        return cls(
            peaks=rows.abs().amax(3).double(),
            energy=rows.double().square().sum(3),
            kernel=rows.shape[3],
            power=power,
        )


def noise(
    scales: Tensor,
    readers: Sequence[Reader],
    values: Sequence[Channels],
    *,
    is_symmetric: bool,
) -> float:
    """Noise over signal at the outputs of the readers, a mean over each one's outputs, summed.

    It does not depend on how the outputs of the readers are scaled: each is compared with its own
    signal, and each has its own step for weights.

    Args:
        scales: Of the space's channels, float64[C].
        readers: At least one.
        values: The tensors of the space that are rounded.
        is_symmetric: Whether activations have a zero point of 0.
    """
    steps = torch.stack([step(value, scales, is_symmetric=is_symmetric) for value in values])
    variance = steps.square().sum() / _VARIANCE
    return sum(_noise_of(reader, scales, variance) for reader in readers)


def _noise_of(reader: Reader, scales: Tensor, variance: Tensor) -> float:
    by_group = (len(reader.peaks), 1, -1)
    inverse = (1 / scales).reshape(by_group)
    signal = (reader.energy * reader.power.reshape(by_group)).sum(2)
    of_values = variance * (reader.energy * inverse.square()).sum(2)
    weight_steps = (reader.peaks * inverse).amax(2) / _WEIGHT_LEVELS
    scaled_power = (scales.square() * reader.power).reshape(by_group).sum(2) * reader.kernel
    of_weights = weight_steps.square() / _VARIANCE * scaled_power
    is_live = signal > 0
    ratios = ((of_values + of_weights) / signal)[is_live]
    return float(ratios.mean()) if ratios.numel() else 0.0


def step(value: Channels, scales: Tensor, *, is_symmetric: bool) -> Tensor:
    """Of a tensor whose channels are scaled, for the values that were seen."""
    if is_symmetric:
        return (value.peaks * scales).amax() / _SYMMETRIC_LEVELS
    high = (value.high * scales).amax().clamp(min=0.0)
    low = (value.low * scales).amin().clamp(max=0.0)
    return (high - low) / _LEVELS
