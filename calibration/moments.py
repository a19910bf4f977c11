"""Moments of a tensor, out of its histogram alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeship.calibration.clipping import bin_centres
from edgeship.calibration.statistics import BINS, TensorStatistics


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and standard deviation of all values of a tensor, each true to a bin: R / 1024."""

    mean: float
    std: float


def moments_of(item: TensorStatistics) -> Moments:
    """Moments of every value that was measured; of none at all both are 0.

    Every value counts as the centre of its bin, so that the mean is off by at most half a bin.
    """
    total = int(item.counts.sum())
    if not total:
        return Moments(mean=0.0, std=0.0)
    centres = bin_centres(item.exponent)
    mean = float((centres * item.counts).sum()) / total
    variance = float(((centres - mean) ** 2 * item.counts).sum()) / total
    return Moments(mean=mean, std=float(np.sqrt(variance)))


def share_beyond(item: TensorStatistics, low: float, high: float) -> float:
    """Share of the values in bins that lie wholly below `low` or above `high`; 0 of none."""
    total = int(item.counts.sum())
    if not total:
        return 0.0
    edges = np.arange(-BINS // 2, BINS // 2 + 1) * np.ldexp(1.0, item.exponent - 10)
    beyond = item.counts[edges[1:] <= low].sum() + item.counts[edges[:-1] > high].sum()
    return float(beyond) / total
