"""Search: which alpha leaves the least error in what linear layers give, as integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from edgeship.calibration.equalize.smoothquant.observation import Seen
from edgeship.calibration.equalize.smoothquant.rounding import rounded_activation, rounded_weight
from edgeship.calibration.equalize.smoothquant.scales import smoothing_scales

ALPHAS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Tried first, then both sides of the best. MiniLM takes 0.7 to 0.9 of most layers (measured); 0.5
is the paper's for most models, 0.8 for those with larger outliers."""
_FINE: Final = 0.05
_OUTPUTS: Final = 256
"""Of a layer that count: each output channel has a weight scale of its own, so some tell of all."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Scales for one activation.

    Attributes:
        alpha: See `smoothing_scales`.
        scale: float32[C], of the channels that get scales.
        error: Power of the layers' output error over that of the output, mean of the layers, as
            foretold: scales that half of the samples give, on all of them.
        error_before: The same without scales.
    """

    alpha: float
    scale: Tensor
    error: float
    error_before: float


def best_choice(
    seen: Seen,
    weights: Sequence[Tensor],
    reduce: Callable[[Tensor], Tensor],
    spread: Callable[[Tensor], Tensor],
    *,
    is_symmetric: bool,
) -> Choice:
    """Try every alpha.

    Args:
        seen: The activation, K channels.
        weights: float32[out, K] of each layer that reads it.
        reduce: Largest magnitudes of the C channels that get scales, from those of the K.
        spread: The K channels' scales from those of the C.
        is_symmetric: Whether the activation's zero point is 0.
    """
    trial = _Trial(seen, weights, is_symmetric=is_symmetric)
    before = trial.error(torch.ones(seen.rows.shape[1]))
    # the scales of all samples fit them too well to be judged on them
    half, full = reduce(seen.reach[::2].amax(0)), reduce(seen.reach.amax(0))
    weight = reduce(torch.stack([matrix.abs().amax(0) for matrix in weights]).amax(0))

    def choice(alpha: float) -> Choice:
        error = trial.error(spread(smoothing_scales(half, weight, alpha)))
        scale = smoothing_scales(full, weight, alpha)
        return Choice(alpha=alpha, scale=scale, error=error, error_before=before)

    coarse = min(map(choice, ALPHAS), key=_error)
    fine = [choice(round(coarse.alpha + step, 2)) for step in (-_FINE, _FINE)]
    return min(coarse, *fine, key=_error)


def _error(choice: Choice) -> float:
    return choice.error


class _Trial:
    """Layers fed with the kept rows, in float and as integers."""

    def __init__(self, seen: Seen, weights: Sequence[Tensor], *, is_symmetric: bool) -> None:
        self._seen = seen
        self._range = seen.low.amin(0), seen.high.amax(0)
        self._is_symmetric = is_symmetric
        self._weights = [weight[:: -(-len(weight) // _OUTPUTS)] for weight in weights]
        self._expected = [seen.rows @ weight.T for weight in self._weights]

    def error(self, scale: Tensor) -> float:
        """Relative power, by scales of all channels of the activation."""
        rows = self._rounded_rows(scale)
        errors = []
        for weight, expected in zip(self._weights, self._expected, strict=True):
            found = rows @ rounded_weight(weight * scale).T
            power = self._power(expected)
            errors.append(self._power(found - expected) / power if power else 0.0)
        return sum(errors) / len(errors)

    def _rounded_rows(self, scale: Tensor) -> Tensor:
        low, high = self._range
        return rounded_activation(
            self._seen.rows / scale,
            min(0.0, float((low / scale).min())),
            max(0.0, float((high / scale).max())),
            is_symmetric=self._is_symmetric,
        )

    def _power(self, values: Tensor) -> float:
        return float(values.square().sum(1) @ self._seen.counts)
