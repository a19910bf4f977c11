"""Two passes: a norm of tokens so unequal that eight bits cannot hold all their variances.

The first pass, with a large constant in place of epsilon, brings tokens close together; the second
one, of what is left, is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

SHARES: Final = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Constants to try, as shares of the largest mean square."""
WORTH: Final = 0.95
"""A second pass costs five operators: the error must fall to this share of what it was.

In MiniLM it falls to .84 to .91 behind the feed-forwards of the last three layers, nowhere else
below .99; the file with these three passes had a cosine of .9959, without them .9937 (measured)."""
_STEPS: Final = 255
_LEAST: Final = 1e5
"""Constants at least so many times epsilon: see `write_first_pass`."""


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """A first pass; `saved` is the share of rounding errors that it should save."""

    constant: float
    saved: float


def best_pass(values: Tensor, epsilon: float) -> FirstPass | None:
    """The first pass that lets eight bits lose least; None where it is not worth its operators.

    Each operator's result is rounded as an int8 tensor would be, with the range of these values.

    Args:
        values: float32[..., width], what a norm reads.
        epsilon: Of the norm.
    """
    held = _Rounded.of(values, values)
    once = _error(_normalized(held, epsilon))
    largest = float(values.square().mean(-1).max())
    constants = [share * largest for share in SHARES if share * largest > _LEAST * epsilon]
    errors = {
        constant: _error(_normalized(_normalized(held, constant), epsilon / constant))
        for constant in constants
    }
    best = min(errors, key=errors.__getitem__, default=None)
    if best is None or not errors[best] < WORTH * once:
        return None
    return FirstPass(constant=best, saved=1 - errors[best] / once)


@dataclass(frozen=True, eq=False)
class _Rounded:
    """What a tensor holds, and what of it an int8 tensor with its range gives."""

    exact: Tensor
    found: Tensor

    @classmethod
    def of(cls, exact: Tensor, found: Tensor) -> _Rounded:
        """Round `found` to the range of `exact`."""
        low, high = min(float(exact.min()), 0.0), max(float(exact.max()), 0.0)
        step = (high - low) / _STEPS or 1.0
        zero = round(-low / step)
        return cls(exact, (found / step).round().clamp(-zero, _STEPS - zero) * step)


def _normalized(values: _Rounded, epsilon: float) -> _Rounded:
    square = _Rounded.of(values.exact**2, values.found**2)
    mean = _Rounded.of(*(item.mean(-1, keepdim=True) for item in (square.exact, square.found)))
    root = _Rounded.of(*((item + epsilon).rsqrt() for item in (mean.exact, mean.found)))
    return _Rounded.of(values.exact * root.exact, values.found * root.found)


def _error(values: _Rounded) -> float:
    """Mean over tokens of the part of a vector's length that is wrong."""
    wrong = (values.found - values.exact).square().sum(-1) / values.exact.square().sum(-1)
    return float(wrong.sqrt().mean())
