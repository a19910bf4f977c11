"""Scales: by how much each channel of a space is multiplied, so that 8 bits hold it best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from edgeship.calibration.equalize.cross_layer.noise import Reader, noise

if TYPE_CHECKING:
    from edgeship.calibration.equalize.cross_layer.observation import Channels

_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the weights in a scale: at 0 all channels get one range and the weights the whole
imbalance, at 1 the other way round. 1/2 is the rule for two weights, s = sqrt(r1 r2) / r2
(arXiv:1906.04721, equation 11), with the range of the activations in the place of r1."""
_LIMIT: Final = 2.0**12
"""Largest factor away from the median channel: what is farther off is as good as dead."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Scales of a space's channels.

    Attributes:
        scales: float64[C], positive.
        gain_db: What they take off the modelled noise of the space's readers.
        before: Widest channel over the median one.
        after: The same with the scales.
    """

    scales: Tensor
    gain_db: float
    before: float
    after: float


def solve_scales(
    readers: Sequence[Reader],
    values: Sequence[Channels],
    *,
    is_symmetric: bool,
) -> Solution:
    """The scales with the least modelled noise, of those that share imbalance in some proportion.

    Channels that were 0 throughout, or that no reader reads, keep 1; the widest one keeps its
    range. Rounding to powers of two would keep each weight's digits, and cost up to 0.9 dB of
    signal to error in nets with an injected imbalance (measured). With a step for each output of a
    weight it does not matter to the writers' weights how their outputs are scaled, so that spaces
    do not depend on each other and nothing is iterated.

    Args:
        readers: Layers that read the space, at least one.
        values: The tensors of the space that are rounded, at least one.
        is_symmetric: Whether activations have a zero point of 0.
    """
    peaks = _joint_peaks(values)
    weights = _joint_weights(readers)
    ones = torch.ones_like(peaks)
    known = noise(ones, readers, values, is_symmetric=is_symmetric)
    best, least = ones, known
    for share in _SHARES:
        scales = _scales_at(share, peaks, weights)
        found = noise(scales, readers, values, is_symmetric=is_symmetric)
        if found < least:
            best, least = scales, found
    gain_db = 10 * math.log10(known / least) if least > 0 else 0.0
    before, after = spread(peaks), spread(peaks * best)
    return Solution(scales=best, gain_db=gain_db, before=before, after=after)


def spread(peaks: Tensor) -> float:
    """Widest channel over the median of those that are not 0; 1 where there is none."""
    live = peaks[peaks > 0]
    return float(live.max() / live.median()) if live.numel() else 1.0


def _scales_at(share: float, peaks: Tensor, weights: Tensor) -> Tensor:
    is_live = (peaks > 0) & (weights > 0)
    scales = torch.ones_like(peaks)
    if not bool(is_live.any()):
        return scales
    wanted = weights[is_live] ** share / peaks[is_live] ** (1 - share)
    middle = wanted.median()
    scales[is_live] = wanted.clamp(middle / _LIMIT, middle * _LIMIT)
    kept = (peaks[is_live].max() / (peaks * scales)[is_live].max()).item()
    scales[is_live] *= kept
    return scales


def _joint_peaks(values: Sequence[Channels]) -> Tensor:
    """Largest magnitude of each channel in any tensor, each tensor's widest channel being 1."""
    found = [value.peaks / value.peaks.max().clamp(min=torch.finfo().tiny) for value in values]
    return torch.stack(found).amax(0)


def _joint_weights(readers: Sequence[Reader]) -> Tensor:
    """Largest magnitude of the weights that read each channel, over that of their output."""
    found = []
    for reader in readers:
        widest = reader.peaks.amax(2, keepdim=True)
        found.append((reader.peaks / widest.where(widest > 0, 1.0)).amax(1).reshape(-1))
    return torch.stack(found).amax(0)
