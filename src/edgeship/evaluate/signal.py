"""Signal: how much of a float model's outputs is left in an artifact's, in decibels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgeship.evaluate.token_signal import LIMIT_DB, token_signal

Outputs = Mapping[str, np.ndarray]
"""Of one sample, by name."""


def signal_to_error_db(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """SQNR of the worst output; of a sequence that of its median token, see `token_signal`.

    Args:
        expected: Of each sample.
        found: Of the same samples, with the same shapes.

    Returns:
        10 log10(sum x^2 / sum (x - y)^2) over the samples, within +-`LIMIT_DB`; the lower limit
        where a value is not finite.
    """
    return min(
        _output_db([(one[name], other[name]) for one, other in zip(expected, found, strict=True)])
        for name in expected[0]
    )


def _output_db(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    if not all(np.isfinite(found).all() for _, found in pairs):
        return -LIMIT_DB
    tokens = token_signal(pairs)
    if tokens is not None:
        return tokens.median_db
    signal = error = 0.0
    for expected, found in pairs:
        wanted = expected.astype(np.float64)
        signal += float(np.square(wanted).sum())
        error += float(np.square(wanted - found).sum())
    if error == 0:
        return LIMIT_DB
    return max(-LIMIT_DB, min(LIMIT_DB, 10 * math.log10(signal / error))) if signal else -LIMIT_DB
