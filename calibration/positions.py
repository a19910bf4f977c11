"""Positions: where one token of a sequence owns the range of a tensor, and so all its integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from edgeship.calibration.finding import Finding, Severity, place_of
from edgeship.calibration.observe import Statistics
from edgeship.errors import Problem

OUTLIER_RATIO: Final = 8.0
"""A choice: at 8 times the median position, three of the eight bits are left to that one alone.

In MiniLM, [CLS] is beyond it in 14 of 359 tensors, from 9 to 378 times, and nothing else is: the
next tensor's largest position is at 4.9 times (measured, 64 texts of 128 tokens).
"""
_FEWEST: Final = 4
"""Positions from which on a median says what is usual."""


@dataclass(frozen=True, kw_only=True)
class PositionOutlier:
    """A tensor of which one position is far larger than most others.

    Attributes:
        tensor: Its name.
        position: Of the token, from 0.
        absmax: Largest magnitude there, in all samples.
        median: Of the largest magnitudes at each position.
        positions: How many there are.
    """

    tensor: str
    position: int
    absmax: float
    median: float
    positions: int

    @property
    def ratio(self) -> float:
        """How many times the median it is, above `OUTLIER_RATIO`."""
        return self.absmax / self.median

    def __str__(self) -> str:
        """Both magnitudes, for people."""
        return (
            f"position {self.position} reaches {self.absmax:.3g}, the median of "
            f"{self.positions} positions {self.median:.3g}"
        )


def find_position_outliers(statistics: Statistics) -> list[PositionOutlier]:
    """Tensors of which a position lies above 8 times the median of all, the worst first.

    Positions that only ever held zeros are none: neither an outlier nor in the median.
    """
    found = []
    for name, item in statistics.items():
        alive = item.position_absmax[item.position_absmax > 0]
        if len(alive) < _FEWEST:
            continue
        median, peak = float(np.median(alive)), float(alive.max())
        if peak > OUTLIER_RATIO * median:
            outlier = PositionOutlier(
                tensor=name,
                position=int(item.position_absmax.argmax()),
                absmax=peak,
                median=median,
                positions=len(item.position_absmax),
            )
            found.append(outlier)
    return sorted(found, key=lambda item: (-item.ratio, item.tensor))


def audit_positions(
    statistics: Statistics, modules: Mapping[str, str] = MappingProxyType({})
) -> list[Finding]:
    """At most one warning: of the tensor whose range one position owns the most.

    Args:
        statistics: Of the file on which ranges are made.
        modules: Torch module by tensor, where known.
    """
    outliers = find_position_outliers(statistics)
    if not outliers:
        return []
    worst = outliers[0]
    problem = Problem(
        where=f"calibration: tensor {place_of(worst.tensor, modules)}",
        what=f"one token owns the range{_others(outliers)}",
        expected=f"at most {OUTLIER_RATIO:g} times the median position",
        found=str(worst),
        remedy="integers leave the other tokens few steps: look at the cosine; the rewrite"
        ' "rotate" spreads such a token, where it knows the structure of the model',
    )
    return [Finding(severity=Severity.WARN, problem=problem)]


def _others(outliers: Sequence[PositionOutlier]) -> str:
    """How many tensors have such a token, and which one it mostly is."""
    if len(outliers) == 1:
        return ""
    position, count = Counter(item.position for item in outliers).most_common(1)[0]
    return f", as in {len(outliers)} tensors (position {position} in {count} of them)"
