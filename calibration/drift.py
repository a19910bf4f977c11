"""Drift: whether evaluation data looks to the model like the data that ranges were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edgeship.calibration.finding import Finding, Severity, place_of
from edgeship.calibration.moments import moments_of, share_beyond
from edgeship.calibration.observe import Statistics
from edgeship.calibration.statistics import TensorStatistics
from edgeship.errors import Problem

DRIFT_SAMPLES: Final = 64
"""Evaluation samples that are enough to look at; see `_SHIFT`."""
_SHIFT: Final = 0.25
"""Shift of the mean, in standard deviations of the representative data.

ResNet-20 calibrated on 1,000 CIFAR-10 images: four draws of 64 others shifted no tensor by more
than 0.11 and changed no spread by more than 6 %; pixels brighter by 20 of 255 shifted the input by
0.37, half the contrast made its spread 0.51, noise of 25 of 255 made a tensor's 1.55.
"""
_SPREAD: Final = 1.25
"""Ratio of the standard deviations, either way; as above."""
_BEYOND: Final = 0.01
"""Share of the values that the ranges would clip; the four draws reached 0.0016."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far one tensor's values on other data lie from those of the representative data.

    Attributes:
        shift: Of the mean, in standard deviations, signed.
        spread: Ratio of the standard deviations.
        beyond: Share of the values outside of the extremes of the representative data.
    """

    shift: float
    spread: float
    beyond: float

    @property
    def score(self) -> float:
        """The largest of the three in units of its limit; above 1 is drift."""
        spread = max(self.spread, 1 / self.spread) if self.spread > 0 else float("inf")
        return max(abs(self.shift) / _SHIFT, (spread - 1) / (_SPREAD - 1), self.beyond / _BEYOND)

    def __str__(self) -> str:
        """All three, for people."""
        return (
            f"mean shifted by {self.shift:+.2f} standard deviations, spread x {self.spread:.2f}, "
            f"{100 * self.beyond:.1f} % beyond the range"
        )


def measure_drift(base: TensorStatistics, other: TensorStatistics) -> Drift | None:
    """Compare two tensors' statistics; None where the first does not vary or either is empty."""
    before, after = moments_of(base), moments_of(other)
    if base.is_empty or other.is_empty or base.minimum == base.maximum:
        return None
    return Drift(
        shift=(after.mean - before.mean) / before.std if before.std else 0.0,
        spread=after.std / before.std if before.std else 1.0,
        beyond=share_beyond(other, base.minimum, base.maximum),
    )


def audit_drift(
    calibration: Statistics,
    evaluation: Statistics,
    inputs: frozenset[str],
    modules: Mapping[str, str] = MappingProxyType({}),
) -> list[Finding]:
    """At most one warning: the first input that drifted, else the tensor that drifted most.

    Args:
        calibration: What the ranges are made of.
        evaluation: Of the same file on evaluation data; `DRIFT_SAMPLES` of it will do.
        inputs: Names of the model's inputs: where they drift, all else follows.
        modules: Torch module by tensor, where known.
    """
    found = {
        name: drift
        for name in sorted(calibration.keys() & evaluation.keys())
        if (drift := measure_drift(calibration[name], evaluation[name])) and drift.score > 1
    }
    if not found:
        return []
    worst = max(found, key=lambda name: (name in inputs, found[name].score))
    problem = Problem(
        where=f"calibration: tensor {place_of(worst, modules)}",
        what="the evaluation data is unlike the representative data, "
        f"in {len(found)} of {len(calibration)} tensors",
        expected=f"a shift within {_SHIFT:g}, a spread within x {_SPREAD:g}, "
        f"at most {100 * _BEYOND:g} % beyond",
        found=str(found[worst]),
        remedy="calibrate with samples like those that the model will meet",
    )
    return [Finding(severity=Severity.WARN, problem=problem)]
