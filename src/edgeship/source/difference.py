"""Difference: how far the outputs of two forms of a model lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude; NaN if either holds NaN."""
    import numpy as np

    wanted = expected.astype(np.float64)  # booleans and unsigned integers cannot be subtracted
    scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
    return float(np.abs(wanted - found).max(initial=0.0)) / scale
