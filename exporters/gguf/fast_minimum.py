"""Minimum: the search for scale and minimum of 64 sub-blocks at once, for Q4_K and Q5_K.

Source: `quantize_row_q4_K_ref` and `make_qkx2_quants` of ggml-quants.c. A sub-block of 32 weights
becomes level * scale + minimum. Each candidate finds levels by another inverse scale, and scale and
minimum are fitted to them by weighted least squares. Easily overlooked: a candidate counts its
range and its levels from the minimum of the best one so far, not from that of the weights.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import LANES, Floats, nearest, part

SUB_BLOCK: Final = 32
LOW: Final = 0
HIGH: Final = 1
SCALE: Final = 2
MINIMUM: Final = 3
INVERSE: Final = 4
ORIGIN: Final = 5
NEAREST: Final = 6
"""Rows of what is found: minimum (0 at most) and maximum of the weights; scale and minimum of the
best candidate, the inverse scale and the minimum by which it found its levels, and the smallest
range that a candidate counted from."""
FOUND: Final = 7
WORK: Final = SUB_BLOCK + 10
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_COUNT: Final = np.float32(SUB_BLOCK)
_UNROLLED: Final = 4
"""Weights of a sub-block between two loads of its sums: 1 takes 1.5 times as long (measured)."""
_Sums = tuple[np.float32, np.float32, np.float32]


@part
def search_minimum(x: Floats, work: Floats, found: Floats, top: np.float32, steps: Floats) -> None:
    """Fill `found` for the sub-blocks that are the columns of `x`.

    Args:
        x: float32[32, 64], finite; left unchanged.
        work: float32[WORK, 64], work space.
        found: float32[FOUND, 64].
        top: The largest level.
        steps: For each candidate its inverse scale times the range.
    """
    w, sum_w, sum_x = work[:32], work[32], work[33]
    sums, error, best = work[34:37], work[37], work[38]
    scale, minimum, inverse_scale = work[39], work[40], work[41]
    _weigh(x, w, sum_w, sum_x, found)
    for lane in range(LANES):
        found[NEAREST, lane] = found[HIGH, lane] - found[LOW, lane]
        inverse = top / found[NEAREST, lane]
        found[INVERSE, lane] = inverse
        found[SCALE, lane] = _ONE / inverse
        found[MINIMUM, lane] = found[LOW, lane]
        found[ORIGIN, lane] = found[LOW, lane]
    _add_errors(x, w, found[INVERSE], found[ORIGIN], found[SCALE], found[MINIMUM], best, top)
    for step in steps:
        for lane in range(LANES):
            extent = found[HIGH, lane] - found[MINIMUM, lane]
            inverse_scale[lane] = step / extent
            found[NEAREST, lane] = min(extent, found[NEAREST, lane])
        _add_levels(x, w, inverse_scale, found[MINIMUM], sums[0], sums[1], sums[2], top)
        _fit(sums[0], sums[1], sums[2], sum_w, sum_x, scale, minimum)
        _add_errors(x, w, inverse_scale, found[MINIMUM], scale, minimum, error, top)
        for lane in range(LANES):
            is_better = error[lane] < best[lane]
            best[lane] = error[lane] if is_better else best[lane]
            found[INVERSE, lane] = inverse_scale[lane] if is_better else found[INVERSE, lane]
            found[ORIGIN, lane] = found[MINIMUM, lane] if is_better else found[ORIGIN, lane]
            found[SCALE, lane] = scale[lane] if is_better else found[SCALE, lane]
            found[MINIMUM, lane] = minimum[lane] if is_better else found[MINIMUM, lane]


@part
def _weigh(x: Floats, w: Floats, sum_w: Floats, sum_x: Floats, found: Floats) -> None:
    """Weights of the errors, root mean square plus magnitude, their sums, and the extremes."""
    low, high = found[LOW], found[HIGH]
    sum_w[:] = _ZERO
    for i in range(SUB_BLOCK):
        for lane in range(LANES):
            sum_w[lane] += x[i, lane] * x[i, lane]
    for lane in range(LANES):
        sum_x[lane] = np.sqrt(sum_w[lane] / _COUNT)
        low[lane] = x[0, lane]
        high[lane] = x[0, lane]
    for i in range(SUB_BLOCK):
        for lane in range(LANES):
            w[i, lane] = sum_x[lane] + abs(x[i, lane])
    for lane in range(LANES):
        sum_w[lane] = w[0, lane]
        sum_x[lane] = w[0, lane] * x[0, lane]
    for i in range(1, SUB_BLOCK):
        for lane in range(LANES):
            value = x[i, lane]
            low[lane] = value if value < low[lane] else low[lane]
            high[lane] = value if value > high[lane] else high[lane]
            sum_w[lane] += w[i, lane]
            sum_x[lane] += w[i, lane] * value
    for lane in range(LANES):
        low[lane] = _ZERO if low[lane] > _ZERO else low[lane]


@part
def level_of(
    value: np.float32, inverse: np.float32, origin: np.float32, top: np.float32
) -> np.float32:
    """The nearest level of 0..`top`; `top` of NaN."""
    level = nearest(inverse * (value - origin))
    level = level if level < top else top
    return level if level > _ZERO else _ZERO


@part
def _with_level(x: np.float32, w: np.float32, level: np.float32, sums: _Sums) -> _Sums:
    weighted = w * level
    return sums[0] + weighted, sums[1] + weighted * level, sums[2] + weighted * x


@part
def _add_levels(
    x: Floats,
    w: Floats,
    inverse: Floats,
    origin: Floats,
    sum_l: Floats,
    sum_l2: Floats,
    sum_xl: Floats,
    top: np.float32,
) -> None:
    """Weighted sums of level, level squared, and weight times level."""
    sum_l[:] = _ZERO
    sum_l2[:] = _ZERO
    sum_xl[:] = _ZERO
    for i in range(0, SUB_BLOCK, _UNROLLED):
        for lane in range(LANES):
            by, base = inverse[lane], origin[lane]
            sums = (sum_l[lane], sum_l2[lane], sum_xl[lane])
            a, b, c, d = x[i, lane], x[i + 1, lane], x[i + 2, lane], x[i + 3, lane]
            sums = _with_level(a, w[i, lane], level_of(a, by, base, top), sums)
            sums = _with_level(b, w[i + 1, lane], level_of(b, by, base, top), sums)
            sums = _with_level(c, w[i + 2, lane], level_of(c, by, base, top), sums)
            sums = _with_level(d, w[i + 3, lane], level_of(d, by, base, top), sums)
            sum_l[lane], sum_l2[lane], sum_xl[lane] = sums


@part
def _fit(
    sum_l: Floats,
    sum_l2: Floats,
    sum_xl: Floats,
    sum_w: Floats,
    sum_x: Floats,
    scale: Floats,
    minimum: Floats,
) -> None:
    """Least squares; the minimum is never above zero. NaN where the levels do not differ."""
    for lane in range(LANES):
        l1, l2, xl = sum_l[lane], sum_l2[lane], sum_xl[lane]
        determinant = sum_w[lane] * l2 - l1 * l1
        slope = (sum_w[lane] * xl - sum_x[lane] * l1) / determinant
        offset = (l2 * sum_x[lane] - l1 * xl) / determinant
        slope = xl / l2 if offset > _ZERO else slope
        offset = _ZERO if offset > _ZERO else offset
        scale[lane] = slope if determinant > _ZERO else np.float32(np.nan)
        minimum[lane] = offset


@part
def _error(
    x: np.float32, w: np.float32, level: np.float32, scale: np.float32, minimum: np.float32
) -> np.float32:
    miss = scale * level + minimum - x
    return w * (miss * miss)


@part
def _add_errors(
    x: Floats,
    w: Floats,
    inverse: Floats,
    origin: Floats,
    scale: Floats,
    minimum: Floats,
    error: Floats,
    top: np.float32,
) -> None:
    """Weighted squared errors; finding the levels again is faster than having stored them."""
    error[:] = _ZERO
    for i in range(0, SUB_BLOCK, _UNROLLED):
        for lane in range(LANES):
            by, base = inverse[lane], origin[lane]
            slope, offset, total = scale[lane], minimum[lane], error[lane]
            a, b, c, d = x[i, lane], x[i + 1, lane], x[i + 2, lane], x[i + 3, lane]
            total += _error(a, w[i, lane], level_of(a, by, base, top), slope, offset)
            total += _error(b, w[i + 1, lane], level_of(b, by, base, top), slope, offset)
            total += _error(c, w[i + 2, lane], level_of(c, by, base, top), slope, offset)
            total += _error(d, w[i + 3, lane], level_of(d, by, base, top), slope, offset)
            error[lane] = total
