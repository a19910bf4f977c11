"""Statistics of one tensor: what a calibration pass saw, independent of batch size and order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

BINS: Final = 2048
"""DESIGN: histogram bins over [-R, R)."""
MIN_EXPONENT: Final = -100
"""R is at least 2**-100: values below its bin width are as good as zero."""
SENTINEL: Final = 1e30
"""Beyond it a value marks something (a mask's -3.4e38) and measures nothing."""
EMA_MOMENTUM: Final = 0.01
"""Weight of a new sample, as averaging_constant of torch's MovingAverageMinMaxObserver."""
EXTREMES_LIMIT: Final = 1024
"""Samples whose extremes are kept: 8 KiB a tensor, and twice the default number of samples."""
POSITIONS_LIMIT: Final = 8192
"""Positions of a sequence that are told apart: 32 KiB a tensor. What is longer is no sequence of
tokens but the anchors of a detector, say."""
_HALF: Final = BINS // 2
_EXACT_EXPONENT: Final = 10
"""Up to R = 2**10 the bin scale is >= 1, so that float32 subnormals cannot underflow to zero."""
_BLOCK: Final = 1 << 15
"""Values per counting step: its buffers stay in the second-level cache."""


@dataclass(kw_only=True)
class TensorStatistics:
    """What was seen of one tensor; all but the EMAs and the samples' extremes without order.

    Attributes:
        count: Values seen, all of them.
        nonfinite: NaN and +inf among them; in nothing below.
        sentinels: Finite values beyond 1e30 in magnitude, and -inf, which masks what a softmax is
            to leave out as they do; in nothing below.
        minimum: Smallest value; +inf if none was seen.
        maximum: Largest value; -inf if none was seen.
        ema_minimum: Moving average of the samples' minima, in the order of the samples.
        ema_maximum: Likewise of their maxima.
        samples: Samples that went into the averages.
        exponent: R = 2**exponent, the least power of two above every magnitude.
        counts: int64[2048], bin k counts k-1024 <= x * 1024 / R < k-1023.
        channel_absmax: float32[C], largest magnitude in each channel.
        position_absmax: float32[T], largest magnitude at each position of a sequence; empty of a
            tensor without one, and of one that is longer than `POSITIONS_LIMIT`.
        sample_extremes: float32[n, 2], minimum and maximum of each of the first 1,024 samples, in
            their order; (inf, -inf) of a sample in which nothing was measured.
    """

    count: int = 0
    nonfinite: int = 0
    sentinels: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    ema_minimum: float = 0.0
    ema_maximum: float = 0.0
    samples: int = 0
    exponent: int = MIN_EXPONENT
    counts: np.ndarray
    channel_absmax: np.ndarray
    position_absmax: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sample_extremes: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.float32))

    def add(self, values: np.ndarray, channel_axis: int, position_axis: int | None = None) -> None:
        """Take in a stack of samples.

        Args:
            values: float32[samples, ...], in the order of the samples; not modified.
            channel_axis: Axis of the channels, >= 1.
            position_axis: Axis of the positions of a sequence, >= 1; None if there is none.
        """
        if not values.size:
            return
        self.count += values.size
        low, high = _extremes(values, channel_axis)
        if not (np.abs(low) < SENTINEL).all() or not (np.abs(high) < SENTINEL).all():
            values, low, high = self._set_aside(values, channel_axis)
        extremes = np.stack((low.min(axis=1), high.max(axis=1)), axis=1) + np.float32(0)
        self._keep_extremes(extremes)
        self.samples, self.ema_minimum, self.ema_maximum = self._averages(extremes)
        seen = np.isfinite(low) & np.isfinite(high)
        if not seen.any():
            return
        # + 0.0 and abs make -0.0 to 0.0: which of the two a minimum finds depends on the order
        self.minimum = min(self.minimum, float(low[seen].min())) + 0.0
        self.maximum = max(self.maximum, float(high[seen].max())) + 0.0
        absmax = np.maximum(np.where(seen, -low, 0), np.where(seen, high, 0)).max(axis=0)
        self.channel_absmax = np.maximum(self.channel_absmax, np.abs(absmax))
        self.exponent, self.counts = widen(
            self.exponent, self.counts, exponent_above(max(-self.minimum, self.maximum))
        )
        flat = values.reshape(-1)
        has_gaps = self._has_gaps(values, seen)
        if position_axis is not None and len(self.position_absmax):
            known = np.nan_to_num(values) if has_gaps else values
            peaks = _peaks(known, position_axis)
            self.position_absmax = np.maximum(self.position_absmax, peaks)
        finite = flat[np.isfinite(flat)] if has_gaps else flat
        self.counts += count_bins(finite, self.exponent, is_positive=self.minimum >= 0)

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """Both together, exactly as if one pass had seen all; what depends on order is dropped."""
        exponent = max(self.exponent, other.exponent)
        return TensorStatistics(
            count=self.count + other.count,
            nonfinite=self.nonfinite + other.nonfinite,
            sentinels=self.sentinels + other.sentinels,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            ema_minimum=math.nan,
            ema_maximum=math.nan,
            samples=self.samples + other.samples,
            exponent=exponent,
            counts=widen(self.exponent, self.counts, exponent)[1]
            + widen(other.exponent, other.counts, exponent)[1],
            channel_absmax=np.maximum(self.channel_absmax, other.channel_absmax),
            position_absmax=np.maximum(self.position_absmax, other.position_absmax),
        )

    @property
    def is_empty(self) -> bool:
        """Whether no value was finite and no sentinel."""
        return self.minimum > self.maximum

    @property
    def absmax(self) -> float:
        """Largest magnitude; 0 if empty."""
        return 0.0 if self.is_empty else max(-self.minimum, self.maximum)

    def _set_aside(
        self, values: np.ndarray, channel_axis: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count what is no measurement and put NaN in its place; extremes of the rest."""
        with np.errstate(invalid="ignore"):
            is_value = np.abs(values) < SENTINEL
        is_odd = np.isnan(values) | np.isposinf(values)
        self.nonfinite += int(is_odd.sum())
        self.sentinels += int(values.size - is_value.sum() - is_odd.sum())
        low, _ = _extremes(np.where(is_value, values, np.inf), channel_axis)
        _, high = _extremes(np.where(is_value, values, -np.inf), channel_axis)
        return np.where(is_value, values, np.nan).astype(np.float32), low, high

    def _has_gaps(self, values: np.ndarray, seen: np.ndarray) -> bool:
        """Whether `values` may hold the NaNs of `_set_aside`."""
        return bool(self.nonfinite or self.sentinels or not seen.all()) and bool(
            np.isnan(values).any()
        )

    def _keep_extremes(self, extremes: np.ndarray) -> None:
        room = EXTREMES_LIMIT - len(self.sample_extremes)
        if room > 0:
            self.sample_extremes = np.concatenate((self.sample_extremes, extremes[:room]))

    def _averages(self, extremes: np.ndarray) -> tuple[int, float, float]:
        """EMA over the samples' extremes; the first one starts it, empty ones do not count."""
        samples, minimum, maximum = self.samples, self.ema_minimum, self.ema_maximum
        for lowest, highest in extremes:
            if lowest > highest:
                continue
            weight = EMA_MOMENTUM if samples else 1.0
            minimum += weight * (float(lowest) - minimum)
            maximum += weight * (float(highest) - maximum)
            samples += 1
        return samples, minimum, maximum


def empty_statistics(channels: int, positions: int = 0) -> TensorStatistics:
    """Of a tensor with `channels` channels that nothing was seen of.

    Args:
        channels: Length of the axis of the channels.
        positions: Length of the sequence; 0 where there is none.
    """
    return TensorStatistics(
        counts=np.zeros(BINS, np.int64),
        channel_absmax=np.zeros(channels, np.float32),
        position_absmax=np.zeros(positions if positions <= POSITIONS_LIMIT else 0, np.float32),
    )


def exponent_above(magnitude: float) -> int:
    """The least e >= -100 with 2**e > magnitude, for a finite magnitude >= 0."""
    return max(MIN_EXPONENT, math.frexp(magnitude)[1]) if magnitude else MIN_EXPONENT


def count_bins(values: np.ndarray, exponent: int, *, is_positive: bool = False) -> np.ndarray:
    """int64[2048] counts of finite float32 values in [-2**exponent, 2**exponent).

    The bin of x is floor(x * 1024 / R): the product with a power of two is exact, so each value's
    bin is too, and doubling R folds pairs of bins exactly. -0.0 counts as 0.

    Args:
        values: float32[n], each below R in magnitude.
        exponent: R = 2**exponent.
        is_positive: True if no value is below 0: truncation is then the floor.
    """
    kind = np.float32 if exponent <= _EXACT_EXPONENT else np.float64
    scale = kind(math.ldexp(1.0, 10 - exponent))
    buffer = np.empty(min(_BLOCK, values.size), kind)
    indices = np.empty(buffer.size, np.int64)
    counts = np.zeros(BINS, np.int64)
    first = _HALF if is_positive else 0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        scaled, index = buffer[: block.size], indices[: block.size]
        np.multiply(block, scale, out=scaled)
        if not is_positive:
            np.floor(scaled, out=scaled)
            np.add(scaled, _HALF, out=scaled)
        np.copyto(index, scaled, casting="unsafe")
        found = np.bincount(index, minlength=BINS - first)
        np.add(counts[first:], found, out=counts[first:])
    return counts


def widen(exponent: int, counts: np.ndarray, wanted: int) -> tuple[int, np.ndarray]:
    """The same counts over a range of at least 2**wanted: pairs of bins fold exactly."""
    if wanted <= exponent:
        return exponent, counts
    shift = min(wanted - exponent, 62)
    folded = np.zeros(BINS, np.int64)
    np.add.at(folded, (np.arange(BINS) - _HALF >> shift) + _HALF, counts)
    return wanted, folded


def _extremes(values: np.ndarray, channel_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """float[samples, C] minima and maxima over everything but samples and channels."""
    samples, channels = values.shape[0], values.shape[channel_axis]
    before = math.prod(values.shape[1:channel_axis])
    view = values.reshape(samples, before, channels, -1)
    return view.min(axis=(1, 3)), view.max(axis=(1, 3))


def _peaks(values: np.ndarray, axis: int) -> np.ndarray:
    """float32[n] largest magnitude at each index of an axis; without NaN."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    # not of np.abs(values), which is a copy of the whole stack; abs makes -0.0 to 0.0
    peaks: np.ndarray = np.abs(np.maximum(values.max(axis=others), -values.min(axis=others)))
    return peaks
