"""Scales: how much of each channel's magnitude goes from an activation into the weights."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_LEAST: Final = 1e-5
"""Of a scale. Source: github.com/mit-han-lab/smoothquant, smoothquant/smooth.py."""


def smoothing_scales(activation: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Give each channel s = activation^alpha / weight^(1 - alpha), clamped.

    Source: Xiao et al., "SmoothQuant", 2022, equation 4.

    Args:
        activation: float32[C], largest magnitude of each channel. One that is below the median of
            those that are not 0 counts as the median: a channel that seldom fires would be blown up
            until, on other samples, it sets the range of all. Without that MiniLM's scales of 16
            texts took its cosine, symmetric, from .984 to .963; with it, to .996 (measured).
        weight: float32[C], likewise of the weights that read it, as it is.
        alpha: How much of the difficulty the weights take, 0..1.

    Returns:
        float32[C], the activation's divisor. 1 where a channel or its weights are all 0.
    """
    is_alive = (activation > 0) & (weight > 0)
    if not bool(is_alive.any()):
        return torch.ones_like(activation)
    floor = float(activation[is_alive].median())
    scale = activation.clamp_min(floor).pow(alpha) / weight.pow(1 - alpha)
    scale = scale.clamp(_LEAST, 1 / _LEAST)
    return torch.where(is_alive, scale, torch.ones_like(scale))


def shared_reach(reach: Tensor, origin: Tensor, channels: int) -> Tensor:
    """The largest reach of all channels that come from one.

    Args:
        reach: float32[C].
        origin: int64[C], which one each comes from.
        channels: How many there are.

    Returns:
        float32[channels], 0 for one that nothing comes from.
    """
    return torch.zeros(channels).scatter_reduce(0, origin, reach, "amax")
