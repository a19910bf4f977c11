"""Confidence intervals of shares."""

from __future__ import annotations

import math
from typing import Final

_Z95: Final = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, JASA 22, 1927, p. 209).

    Args:
        successes: 0..count.
        count: >= 1.
    """
    share = successes / count
    weight = _Z95**2 / count
    centre = (share + weight / 2) / (1 + weight)
    half = _Z95 / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return min(low, share), max(high, share)  # at 0 and 1 rounding may put the share outside
