"""Ranges: solved from Statistics under a policy; nothing else of the data enters a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from edgeship.calibration.clipping import kl_bounds, mse_bounds
from edgeship.calibration.observe import Statistics
from edgeship.calibration.statistics import BINS, TensorStatistics
from edgeship.project import RangePolicy
from edgeship.vocabulary import RangeMethod


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a tensor's integers must span; low <= high, both finite."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges by tensor name.

    Attributes:
        by_name: Of every tensor in which a finite number was seen.
        dead: Names of tensors that were 0 throughout: pruned away, or never activated.
        masks: Names of tensors that held sentinels: they are never quantized.
        seen: Least and largest values of those that the policy cut; of the others `by_name` has
            them.
    """

    by_name: Mapping[str, Range]
    dead: tuple[str, ...]
    masks: tuple[str, ...]
    seen: Mapping[str, Range] = field(default_factory=dict)

    @property
    def unclipped(self) -> Mapping[str, Range]:
        """What float16 has to hold, which saturates nowhere: least and largest values by name."""
        return {**self.by_name, **self.seen}


def solve_ranges(statistics: Statistics, policy: RangePolicy) -> Ranges:
    """Solve every tensor's range under `policy`; tensors without a finite value are left out."""
    full = {name: item for name, item in statistics.items() if not item.is_empty}
    solved = {name: _solve(item, policy) for name, item in full.items()}
    seen = {name: Range(low=item.minimum, high=item.maximum) for name, item in full.items()}
    return Ranges(
        by_name=solved,
        seen={name: item for name, item in seen.items() if item != solved[name]},
        dead=tuple(name for name, item in statistics.items() if _is_dead(item)),
        masks=tuple(name for name, item in statistics.items() if item.sentinels),
    )


def _is_dead(item: TensorStatistics) -> bool:
    return not item.is_empty and not item.sentinels and item.absmax == 0


def _solve(item: TensorStatistics, policy: RangePolicy) -> Range:
    match policy.method:
        case RangeMethod.MIN_MAX:
            return Range(low=item.minimum, high=item.maximum)
        case RangeMethod.PERCENTILE:
            return percentile_range(item, policy.percentile)
        case RangeMethod.EMA:
            return Range(low=item.ema_minimum, high=item.ema_maximum)
        case RangeMethod.MSE:
            return _between(mse_bounds(item))
        case RangeMethod.KL:
            return _between(kl_bounds(item))


def _between(bounds: tuple[float, float]) -> Range:
    return Range(low=bounds[0], high=bounds[1])


def percentile_range(item: TensorStatistics, percentile: float) -> Range:
    """The least range of whole bins that cuts at most half of the rest off each end.

    `percentile` of the values lie inside; (100 - percentile) / 2 percent may lie beyond each end.
    Within the extremes, so that an end that is not cut is exact; otherwise true to one bin width,
    R / 1024.
    """
    edges = np.arange(-BINS // 2, BINS // 2 + 1) * np.ldexp(1.0, item.exponent - 10)
    total = int(item.counts.sum())
    # exact: rounded to float, a cut just below a whole value takes that value along
    beyond = math.floor(total * (100 - Fraction(percentile)) / 200)
    below = np.concatenate(([0], np.cumsum(item.counts)))
    first = int(np.searchsorted(below, beyond, side="right")) - 1
    last = int(np.searchsorted(below, total - beyond, side="left"))
    return Range(
        low=max(item.minimum, float(edges[first])), high=min(item.maximum, float(edges[last]))
    )
