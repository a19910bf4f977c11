"""Token signal: SQNR token by token, where one large token would hide the error of all others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

LIMIT_DB: Final = 200.0
"""What no error is given, and its negative what has no signal: beyond what float32 tells apart."""


@dataclass(frozen=True, kw_only=True)
class TokenSignal:
    """Signal to error of a sequence, in decibels within +-200.

    Attributes:
        whole_db: Over all tokens together, as if they were one tensor.
        median_db: Of the positions, each over all samples.
        lowest_db: Of the worst position.
        position: Which one that is, from 0.
    """

    whole_db: float
    median_db: float
    lowest_db: float
    position: int

    def __str__(self) -> str:
        """All three, for people."""
        return (
            f"{self.median_db:.1f} dB of signal to error at the median token, "
            f"{self.lowest_db:.1f} at position {self.position}, {self.whole_db:.1f} in all"
        )


def token_signal(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> TokenSignal | None:
    """SQNR at each position: 10 log10(sum x^2 / sum (x - y)^2) over samples and features.

    The whole tensor's is that of its largest tokens: in MiniLM's second LayerNorm the squares of
    127 tokens round to 0 beside [CLS], and the tensor still has 30 dB.

    Args:
        pairs: Of each sample what is expected and what was found, float[1, T, C] or float[T, C] of
            one shape for all; consumed one at a time.

    Returns:
        None without a sample, or of other shapes, and of a single token.
    """
    signal = error = np.zeros(0)
    for expected, found in pairs:
        if (
            expected.ndim not in {2, 3}
            or expected.shape[-2] < 2
            or math.prod(expected.shape[:-2]) != 1
        ):
            return None
        wanted = expected.reshape(expected.shape[-2:]).astype(np.float64)
        if not signal.size:
            signal, error = np.zeros(len(wanted)), np.zeros(len(wanted))
        with np.errstate(invalid="ignore", over="ignore"):
            signal += np.square(wanted).sum(axis=1)
            error += np.square(wanted - found.reshape(wanted.shape)).sum(axis=1)
    if not signal.size:
        return None
    each = [_decibels(one, other) for one, other in zip(signal, error, strict=True)]
    position = int(np.argmin(each))
    return TokenSignal(
        whole_db=_decibels(float(signal.sum()), float(error.sum())),
        median_db=float(np.median(each)),
        lowest_db=each[position],
        position=position,
    )


def _decibels(signal: float, error: float) -> float:
    if error == 0:
        return LIMIT_DB
    if not math.isfinite(error) or not math.isfinite(signal) or signal == 0:
        return -LIMIT_DB
    return float(np.clip(10 * math.log10(signal / error), -LIMIT_DB, LIMIT_DB))
