"""Ranges that give up some outliers: solved from a tensor's histogram alone."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.calibration.statistics import BINS, TensorStatistics

LEVELS: Final = 256
"""Of an 8-bit integer."""
_CANDIDATES: Final = 128
"""Shares of the extremes that are tried, evenly spaced up to all of it."""
_KL_LEVELS: Final = 128
"""Of the magnitudes, as in Migacz, "8-bit inference with TensorRT", GTC 2017, p. 38."""
_UNSEEN: Final = 1e-4
"""Values that a bin of Q holds where it holds none and P some: MXNet's smoothing
(contrib/quantization.py, `_smooth_distribution`), without which no lone outlier is ever cut."""
_HALF: Final = BINS // 2


def mse_bounds(item: TensorStatistics) -> tuple[float, float]:
    """The share of (minimum, maximum) with the least expected square error at 256 levels.

    Inside, uniform rounding costs step**2 / 12 for each value; outside, the square of the distance
    to the bound (Banner et al., NeurIPS 2019, section 3.1, from the histogram, not a density). The
    bin at 0 costs nothing: 0 is exact at every scale, and half of a ReLU's values are 0.
    """
    values = bin_centres(item.exponent)
    counts = item.counts.astype(np.float64)
    counts[_HALF] = 0.0
    best = (np.inf, item.minimum, item.maximum)
    for share in np.linspace(1.0, 1.0 / _CANDIDATES, _CANDIDATES).tolist():
        low, high = min(item.minimum, 0.0) * share, max(item.maximum, 0.0) * share
        step = (high - low) / (LEVELS - 1)
        beyond = np.maximum(values - high, 0.0) + np.maximum(low - values, 0.0)
        error = float((counts * np.where(beyond > 0, beyond**2, step**2 / 12)).sum())
        if error < best[0]:
            best = (error, low, high)
    return best[1], best[2]


def kl_bounds(item: TensorStatistics) -> tuple[float, float]:
    """Bounds at the magnitude whose 128-level version loses the least information (Migacz 2017).

    For every threshold the magnitudes beyond it join its last bin (P); the bins below it are
    merged into 128 levels and spread over those that are not empty again (Q); the threshold with
    the least KL(P, Q) wins. The first bin counts as much as the second one (NVIDIA/TensorRT
    pytorch_quantization/calib/histogram.py, `_compute_amax_entropy`): half of a ReLU's values are
    0 and lose nothing, yet merged with their neighbours they outweigh all else, so that the least
    threshold won and ResNet-20 fell from 81 % to 49 %. Thresholds start 128 bins above the first
    filled one: fewer are not merged, and a lone bin that takes in all else loses nothing.
    """
    magnitudes = (item.counts[_HALF:] + item.counts[:_HALF][::-1]).astype(np.float64)
    width = np.ldexp(1.0, item.exponent - 10)
    magnitudes[0] = magnitudes[1]
    filled = np.flatnonzero(magnitudes)
    if not filled.size:
        return item.minimum, item.maximum
    first, last = int(filled[0]), int(filled[-1]) + 1
    thresholds = range(min(first + _KL_LEVELS, last), last + 1)
    losses = [_information_loss(magnitudes, threshold) for threshold in thresholds]
    bound = float(thresholds[int(np.argmin(losses))] * width)
    return max(item.minimum, -bound), min(item.maximum, bound)


def bin_centres(exponent: int) -> np.ndarray:
    """float64[2048] centres of the histogram's bins over [-2**exponent, 2**exponent)."""
    centres: np.ndarray = (np.arange(-_HALF, _HALF) + 0.5) * np.ldexp(1.0, exponent - 10)
    return centres


def _information_loss(magnitudes: np.ndarray, threshold: int) -> float:
    """KL(P, Q) in nats for the first `threshold` bins; infinite where Q is empty."""
    inside = magnitudes[:threshold]
    reference = inside.copy()
    reference[-1] += magnitudes[threshold:].sum()
    level = np.arange(threshold) * _KL_LEVELS // threshold
    is_filled = inside > 0
    mass = np.bincount(level, weights=inside, minlength=_KL_LEVELS)
    filled = np.bincount(level, weights=is_filled, minlength=_KL_LEVELS)
    spread = np.where(is_filled, (mass / np.maximum(filled, 1))[level], 0.0)
    held = reference > 0
    if not spread.any():
        return np.inf
    spread = np.where(held, np.maximum(spread, _UNSEEN), spread)
    p = reference[held] / reference.sum()
    q = spread[held] / spread.sum()
    return float((p * np.log(p / q)).sum())
