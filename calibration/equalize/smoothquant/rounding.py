"""Rounding: values as 8-bit integers hold them, back in float."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_LARGEST: Final = 127
_STEPS: Final = 255


def rounded_activation(values: Tensor, low: float, high: float, *, is_symmetric: bool) -> Tensor:
    """One step for all values, round half to even, saturating.

    Args:
        values: float32[...].
        low: Of the range, at most 0.
        high: Likewise, at least 0.
        is_symmetric: int8 with zero point 0, else uint8 with one.
    """
    if is_symmetric:
        step = max(-low, high) / _LARGEST or 1.0
        return (values / step).round_().clamp_(-_LARGEST - 1, _LARGEST).mul_(step)
    step = (high - low) / _STEPS or 1.0
    zero = round(-low / step)
    return (values / step).round_().clamp_(-zero, _STEPS - zero).mul_(step)


def rounded_weight(weight: Tensor) -> Tensor:
    """float32[out, in] as int8: symmetric, one step for each output channel."""
    step = weight.abs().amax(1, keepdim=True) / _LARGEST
    step = torch.where(step > 0, step, torch.ones_like(step))
    return (weight / step).round_().mul_(step)
