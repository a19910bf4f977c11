"""Nonlinear: the search for the scale of 64 blocks at once, for IQ4_NL and IQ4_XS.

Source: `quantize_row_iq4_nl_impl`, `best_index_int8` and `kvalues_iq4nl` of ggml. A block of 32
weights is stored as indices of 16 levels that lie closer together around zero.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import LANES, Bytes, Floats, part

BLOCK: Final = 32
WORK: Final = 5
_VALUES: Final = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_LEVELS: Final = tuple(np.float32(value) for value in _VALUES)
_MIDDLES: Final = tuple(np.float32((low + high) / 2) for low, high in pairwise(_VALUES))
"""From here on a weight belongs to the next level: `best_index_int8` compares two differences, both
of which are exact near the middle, so that one comparison decides the same."""
_STEPS: Final = np.arange(-7 - 127, 8 - 127, dtype=np.float32)
"""`itry + values[0]`: inverse scales times the largest weight."""
_FIRST: Final = np.float32(127.0)
_NONE: Final = np.float32(1e-15)
"""GROUP_MAX_EPS: smaller weights count as zeros."""
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)


@part
def search_nonlinear(x: Floats, work: Floats, scale: Floats) -> None:
    """The scale whose levels explain most of the block, each weight weighted by its square.

    Args:
        x: float32[32, 64], finite; left unchanged.
        work: float32[WORK, 64], work space.
        scale: float32[64], filled; 0 of a block of zeros.
    """
    peak, inverse, sum_xq, sum_q2, best = work[0], work[1], work[2], work[3], work[4]
    peak[:] = _ZERO
    for i in range(BLOCK):
        for lane in range(LANES):
            value = x[i, lane]
            peak[lane] = value if abs(value) > abs(peak[lane]) else peak[lane]
    for lane in range(LANES):
        inverse[lane] = _ONE / (peak[lane] / _FIRST)
    _add_levels(x, inverse, sum_xq, sum_q2)
    for lane in range(LANES):
        ratio = sum_xq[lane] / sum_q2[lane]
        scale[lane] = ratio if sum_q2[lane] > _ZERO else _ZERO
        best[lane] = scale[lane] * sum_xq[lane]
    for step in _STEPS:
        for lane in range(LANES):
            inverse[lane] = step / peak[lane]
        _add_levels(x, inverse, sum_xq, sum_q2)
        for lane in range(LANES):
            xq, q2 = sum_xq[lane], sum_q2[lane]
            is_better = (q2 > _ZERO) & (xq * xq > best[lane] * q2)
            ratio = xq / q2
            scale[lane] = ratio if is_better else scale[lane]
            best[lane] = ratio * xq if is_better else best[lane]
    for lane in range(LANES):
        scale[lane] = _ZERO if abs(peak[lane]) < _NONE else scale[lane]


@part
def store_indices(weights: Floats, inverse: np.float32, indices: Bytes, out: Bytes) -> None:
    """Indices of the levels nearest to 32 weights, i in the low half of byte i, i + 16 above."""
    for i in range(BLOCK):
        indices[i] = _index_of(inverse * weights[i])
    for i in range(BLOCK // 2):
        out[i] = indices[i] | (indices[BLOCK // 2 + i] << 4)


@part
def _index_of(value: np.float32) -> int:
    index = 0
    for middle in _MIDDLES:
        index += 1 if value >= middle else 0
    return index


@part
def _level_of(value: np.float32) -> np.float32:
    """The nearest level; a loop over the tuples would not be vectorised."""
    m, q = _MIDDLES, _LEVELS
    level = q[1] if value >= m[0] else q[0]
    level = q[2] if value >= m[1] else level
    level = q[3] if value >= m[2] else level
    level = q[4] if value >= m[3] else level
    level = q[5] if value >= m[4] else level
    level = q[6] if value >= m[5] else level
    level = q[7] if value >= m[6] else level
    level = q[8] if value >= m[7] else level
    level = q[9] if value >= m[8] else level
    level = q[10] if value >= m[9] else level
    level = q[11] if value >= m[10] else level
    level = q[12] if value >= m[11] else level
    level = q[13] if value >= m[12] else level
    level = q[14] if value >= m[13] else level
    return q[15] if value >= m[14] else level


@part
def _add_levels(x: Floats, inverse: Floats, sum_xq: Floats, sum_q2: Floats) -> None:
    sum_xq[:] = _ZERO
    sum_q2[:] = _ZERO
    for i in range(BLOCK):
        for lane in range(LANES):
            value = x[i, lane]
            weight = value * value
            level = _level_of(inverse[lane] * value)
            sum_xq[lane] += weight * level * value
            sum_q2[lane] += weight * level * level
