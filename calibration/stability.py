"""Stability: how far ranges would move with other samples, and how many samples would do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.calibration.observe import Statistics

TOLERANCE: Final = 0.05
"""Half-width of the 95 % interval, as a share of the range, that is stable enough.

A choice; on ResNet-20 and CIFAR-10 it asks for about 130 samples, and int8 accuracy was the same
to within noise with 100, 500 and 1,000.
"""
RESAMPLES: Final = 1000
"""Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3, for percentiles."""
_SEED: Final = 0
_INTERVAL: Final = (0.025, 0.975)
_OUTLIER_SAMPLES: Final = 8
"""From here on one sample's share of a range is looked at; two samples differ by half at times."""
OUTLIER_SHARE: Final = 0.5
"""Of a range that one sample may add: more than half costs the others one bit of eight."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How well the samples know the ranges.

    Attributes:
        samples: Those whose extremes are known, at most 1,024.
        variation: Half of the 95 % interval of the least stable tensor, as a share of its range.
        tensor: Its name.
        enough: Samples at which `variation` would be `TOLERANCE`, rounded up to two digits.
    """

    samples: int
    variation: float
    tensor: str
    enough: int


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A sample that alone makes a tensor's range more than twice as wide.

    Attributes:
        tensor: Its name.
        index: Of the sample, in the order of the table.
        share: Of the tensor's range, what only this sample reaches.
    """

    tensor: str
    index: int
    share: float


def measure_stability(statistics: Statistics) -> Stability | None:
    """Bootstrap the range of a typical sample of every tensor; the least stable one counts.

    A sample's range spans its extremes and 0, as the quantizer's does. What is resampled
    (B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979) is the
    mean of the samples' ranges, with 1,000 resamples of a fixed seed and the percentile interval.
    It is not the extreme of all samples: the bootstrap of an extreme does not converge
    (Bickel & Freedman, Ann. Statist. 9, 1981, section 6), and would ask for 3.7 times as many
    samples however many there are, since that many draws hold the largest one with 97.5 %.

    `enough` is the smallest n at which the interval would lie within 5 % of the mean: its width
    falls with the square root of n. Of fewer than about 16 samples it is a rough guess.

    Returns:
        None without two samples, or where every tensor is dead.
    """
    widths = sample_widths(statistics)
    if not widths:
        return None
    names = sorted(widths)
    matrix = np.stack([widths[name] for name in names], axis=1)
    samples = len(matrix)
    generator = np.random.default_rng(_SEED)
    draws = generator.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
    means = draws @ matrix / samples
    low, high = np.quantile(means, _INTERVAL, axis=0)
    variations = (high - low) / 2 / matrix.mean(axis=0)
    worst = int(variations.argmax())
    variation = float(variations[worst])
    return Stability(
        samples=samples,
        variation=variation,
        tensor=names[worst],
        enough=_round_up(samples * (variation / TOLERANCE) ** 2),
    )


def find_outliers(statistics: Statistics) -> list[Outlier]:
    """Tensors of which one sample alone makes more than half of the range, the worst first.

    A range spans 0. Fewer than eight samples have no outliers.
    """
    found = []
    for name, extremes in _measured_extremes(statistics).items():
        if len(extremes) < _OUTLIER_SAMPLES:
            continue
        index, share = _largest_share(np.minimum(extremes[:, 0], 0), np.maximum(extremes[:, 1], 0))
        if share > OUTLIER_SHARE:
            found.append(Outlier(tensor=name, index=index, share=share))
    return sorted(found, key=lambda item: (-item.share, item.tensor))


def sample_widths(statistics: Statistics) -> Mapping[str, np.ndarray]:
    """float64[samples] by tensor: how wide each sample's range is; none of fewer than two samples.

    Of tensors that are alive, hold no mask, and were seen in as many samples as the others.
    """
    return {
        name: np.maximum(extremes[:, 1], 0.0) - np.minimum(extremes[:, 0], 0.0)
        for name, extremes in _measured_extremes(statistics).items()
    }


def _measured_extremes(statistics: Statistics) -> dict[str, np.ndarray]:
    known = {
        name: item.sample_extremes.astype(np.float64)
        for name, item in statistics.items()
        if item.absmax > 0 and not item.sentinels
    }
    samples = max((len(extremes) for extremes in known.values()), default=0)
    return {name: item for name, item in known.items() if len(item) == samples > 1}


def _largest_share(low: np.ndarray, high: np.ndarray) -> tuple[int, float]:
    """The sample without which the range of the others is the narrowest, and by which share."""
    lowest, second_lowest = np.partition(low, 1)[:2]
    second_highest, highest = np.partition(high, -2)[-2:]
    bottom, top = int(low.argmin()), int(high.argmax())
    losses = {bottom: second_lowest - lowest}
    losses[top] = losses.get(top, 0.0) + highest - second_highest
    index = max(losses, key=lambda sample: float(losses[sample]))
    return index, float(losses[index] / (highest - lowest))


def _round_up(number: float) -> int:
    """To two significant digits, upwards."""
    if number <= 10:
        return math.ceil(number)
    unit: int = 10 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
