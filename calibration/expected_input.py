"""Expected input: what preprocessing can give, and what the samples' inputs look like instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.calibration.finding import Finding, Severity, list_names
from edgeship.calibration.statistics import TensorStatistics
from edgeship.contract import Preprocess, TensorSpec
from edgeship.errors import Problem

_OVERSHOOT: Final = 0.3
"""Share of the possible range that values may lie beyond it.

Resizing by bicubic convolution overshoots: at a = -1/2 (R. Keys, IEEE Trans. ASSP 29, 1981) the
weights at half a pixel are -1/16, 9/16, 9/16, -1/16, so by at most (9/8)**2 + (1/8)**2 - 1 = 28 %
in two dimensions. The mistakes are far beyond: pixels of 0..255 reach 50 times the range.
"""
_NARROW: Final = 0.1
"""Share of the possible range below which inputs are suspect.

1,000 images of CIFAR-10 fill all of it (-2.12..2.64); inputs divided by 255 twice fill 7 %.
"""
_UNNORMALISED: Final = 30.0
"""Magnitude that a standardised input does not reach: 30 standard deviations.

CIFAR-10 images that were not normalised spanned -4.8..271 with mean 119; normalised, +-2.7.
"""
_HALF_LEVEL: Final = 1 / 510


@dataclass(frozen=True, kw_only=True)
class Span:
    """A closed interval."""

    low: float
    high: float

    def __str__(self) -> str:
        """`-2.12..2.64`."""
        return f"{self.low:.3g}..{self.high:.3g}"

    @property
    def width(self) -> float:
        """Its length."""
        return self.high - self.low

    def covers(self, other: Span, *, slack: float) -> bool:
        """Whether `other` lies inside, give or take a share of this one's width at each end."""
        room = slack * self.width
        return self.low - room <= other.low and other.high <= self.high + room


def preprocessed_span(preprocess: Preprocess, pixels: Span) -> Span:
    """What `(pixels - mean) / std` spans over all channels; pixels in units of 0..1."""
    pairs = list(zip(preprocess.mean, preprocess.std, strict=True))
    return Span(
        low=min((pixels.low - mean) / std for mean, std in pairs),
        high=max((pixels.high - mean) / std for mean, std in pairs),
    )


def blank_samples(extremes: np.ndarray, preprocess: Preprocess) -> list[int]:
    """Indices of the samples whose pixels are all one grey (black, white) or all 0.

    A grey level p gives each channel (p - mean) / std: the least of them is the sample's minimum
    where p is the largest of minimum * std + mean, and likewise the maximum. Where the two levels
    agree to half of one of 255, the sample is blank; so it is where all of its values are equal.
    A coat of one colour is not recognised.

    Args:
        extremes: float32[n, 2], minimum and maximum of each sample.
        preprocess: Of the input.
    """
    std, mean = np.array(preprocess.std), np.array(preprocess.mean)
    lowest = (extremes[:, :1] * std + mean).max(axis=1)
    highest = (extremes[:, 1:] * std + mean).min(axis=1)
    is_equal = extremes[:, 0] == extremes[:, 1]
    is_blank = is_equal | (np.abs(highest - lowest) <= _HALF_LEVEL)
    return [int(index) for index in np.flatnonzero(is_blank)]


def audit_image(spec: TensorSpec, item: TensorStatistics, names: Sequence[str]) -> Finding | None:
    """The worst that can be said of an input with `preprocess`; None if it looks as it should.

    Args:
        spec: The input; it has `preprocess`.
        item: Its statistics; not empty.
        names: Of the samples, in the order of the table.
    """
    assert spec.preprocess is not None  # the caller's choice
    seen = Span(low=item.minimum, high=item.maximum)
    possible = preprocessed_span(spec.preprocess, Span(low=0.0, high=1.0))
    blank = blank_samples(item.sample_extremes, spec.preprocess)
    if len(item.sample_extremes) == len(blank) > 0:
        return _all_blank(spec.name, seen, names)
    if not possible.covers(seen, slack=_OVERSHOOT):
        return _impossible(spec, seen, possible, _farthest(item.sample_extremes, possible, names))
    if possible.low < 0 <= seen.low and seen.high <= 1 < possible.high:
        return _suspect(spec.name, seen, possible, "seem divided by 255 and no more")
    if seen.width < _NARROW * possible.width:
        return _suspect(spec.name, seen, possible, _narrow_guess(spec.preprocess, seen))
    return _some_blank(spec.name, [names[index] for index in blank]) if blank else None


def audit_array(spec: TensorSpec, item: TensorStatistics, *, is_alone: bool) -> Finding | None:
    """The same of a float input without `preprocess`: is it constant, or huge?

    Args:
        spec: The input.
        item: Its statistics; not empty.
        is_alone: True if no other float input varies; a constant one is then refused.
    """
    seen = Span(low=item.minimum, high=item.maximum)
    if seen.width == 0:
        problem = Problem(
            where=f"calibration: input {spec.name!r}",
            what="the input is the same number in all samples",
            expected="samples as they come in use",
            found=f"{seen.low:.3g} alone",
            remedy="save real samples: ranges of a constant mean nothing",
        )
        return Finding(severity=Severity.REFUSE if is_alone else Severity.WARN, problem=problem)
    if item.absmax > _UNNORMALISED:
        problem = Problem(
            where=f"calibration: input {spec.name!r}",
            what="the input looks as if it was not normalised",
            expected=f"magnitudes below {_UNNORMALISED:g}",
            found=str(seen),
            remedy="save the input as it goes into the model; all is well if the model scales it",
        )
        return Finding(severity=Severity.WARN, problem=problem)
    return None


def _all_blank(name: str, seen: Span, names: Sequence[str]) -> Finding:
    values = f"{seen.low:.3g} alone" if seen.width == 0 else f"values in {seen}"
    problem = Problem(
        where=f"calibration: input {name!r}",
        what="every sample is blank: all of its pixels are equal",
        expected="images as they come in use",
        found=f"{values} in {list_names(names)}",
        remedy="look at the samples: they were read or saved wrongly, or are placeholders",
    )
    return Finding(severity=Severity.REFUSE, problem=problem)


def _farthest(extremes: np.ndarray, possible: Span, names: Sequence[str]) -> str:
    """The sample that lies farthest beyond what is possible; a merged table knows none."""
    if not len(extremes):
        return "an unknown sample"
    beyond = np.maximum(possible.low - extremes[:, 0], extremes[:, 1] - possible.high)
    return names[int(beyond.argmax())]


def _impossible(spec: TensorSpec, seen: Span, possible: Span, worst: str) -> Finding:
    """Name the mistake that explains the values: of those that can, the one of least range."""
    assert spec.preprocess is not None  # the caller's choice
    raw = Span(low=0.0, high=255.0)
    mistakes = {
        "the values seem normalised twice": preprocessed_span(spec.preprocess, possible),
        "the values seem pixels of 0..255, not normalised": raw,
        "the values seem normalised without the division by 255": preprocessed_span(
            spec.preprocess, raw
        ),
    }
    fitting = [text for text, span in mistakes.items() if span.covers(seen, slack=0.1)]
    unknown = "the values cannot come from its preprocessing"
    what = min(fitting, key=lambda text: mistakes[text].width, default=unknown)
    problem = Problem(
        where=f"calibration: input {spec.name!r}",
        what=what,
        expected=f"(pixel / 255 - mean) / std, which gives {possible}",
        found=f"{seen}, the farthest in {worst}",
        remedy=f"save raw uint8 pixels, or apply model.inputs.{spec.name}.preprocess exactly once",
    )
    return Finding(severity=Severity.REFUSE, problem=problem)


def _narrow_guess(preprocess: Preprocess, seen: Span) -> str:
    twice = preprocessed_span(preprocess, Span(low=0.0, high=1 / 255))
    is_twice = twice.covers(seen, slack=0.1)
    return "seem divided by 255 twice" if is_twice else "have hardly any contrast"


def _suspect(name: str, seen: Span, possible: Span, guess: str) -> Finding:
    problem = Problem(
        where=f"calibration: input {name!r}",
        what=f"the values {guess}",
        expected=f"(pixel / 255 - mean) / std, which gives most of {possible}",
        found=str(seen),
        remedy="compare the samples with what the model was trained on",
    )
    return Finding(severity=Severity.WARN, problem=problem)


def _some_blank(name: str, blank: Sequence[str]) -> Finding:
    problem = Problem(
        where=f"calibration: input {name!r}",
        what="samples are blank: all of their pixels are equal",
        found=f"{len(blank)}: {list_names(blank)}",
        remedy="look at the files, and remove them if the model never meets such images",
    )
    return Finding(severity=Severity.WARN, problem=problem)
