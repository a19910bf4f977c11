"""Q6_K: super-blocks of 16 sub-blocks of 16 weights, each with a scale of 8 bits; levels -32..31.

Source: `quantize_row_q6_K_ref` and `make_qx_quants` of ggml-quants.c, `block_q6_K` of
ggml-common.h: the low 4 bits of the levels, their high 2 bits, int8 scales, float16 d.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import (
    LANES,
    Bytes,
    Floats,
    is_ordinary,
    kernel,
    nearest,
    nearest_int,
    part,
)
from edgeship.exporters.gguf.fast_half import half_bits, half_value

_SUPER_BLOCK: Final = 256
_SUB_BLOCK: Final = 16
_SUB_BLOCKS: Final = _SUPER_BLOCK // _SUB_BLOCK
_AT_ONCE: Final = LANES // _SUB_BLOCKS
_LOWEST: Final = np.float32(-32.0)
_TOP: Final = np.float32(31.0)
_TRIES: Final = np.array([i for i in range(-9, 10) if i], np.float32)
_STEPS: Final = -(np.float32(32.0) + np.float32(0.1) * _TRIES)
"""`-(nmax + 0.1f * is)`, each operation in float32: inverse scales times the largest weight."""
_NONE: Final = np.float32(1e-15)
"""GROUP_MAX_EPS: smaller weights count as zeros."""
_ZERO: Final = np.float32(0.0)
_SCALES: Final = 128 + 64
_D: Final = _SCALES + _SUB_BLOCKS
_PEAK: Final = 0
_SCALE: Final = 1
_INVERSE: Final = 2
_BEST: Final = 3
_FOUND: Final = 4


@kernel
def quantize_q6_k(weights: Floats, out: Bytes, is_done: Bytes) -> None:
    """Fill `out`, but for super-blocks that are left to ggml.

    Args:
        weights: float32[n, 256]; unchanged.
        out: uint8[n, 210].
        is_done: uint8[n]: 1, or 0 for those that are left.
    """
    x = np.empty((_SUB_BLOCK, LANES), np.float32)
    work = np.empty((4, LANES), np.float32)
    found = np.empty((_FOUND, LANES), np.float32)
    levels = np.empty(_SUPER_BLOCK, np.uint8)
    for first in range(0, weights.shape[0], _AT_ONCE):
        count = min(_AT_ONCE, weights.shape[0] - first)
        _gather(weights[first : first + count], x, is_done[first : first + count])
        _search(x, work[0], work[1], work[2], found)
        for k in range(count):
            block = out[first + k]
            lane = _SUB_BLOCKS * k
            if not _store_scales(found[_SCALE, lane : lane + _SUB_BLOCKS], block):
                block[:] = 0
                continue
            _find_levels(weights[first + k], found, lane, block, levels)
            _pack(levels, block)


@part
def _gather(weights: Floats, x: Floats, is_done: Bytes) -> None:
    """Sub-blocks to columns of `x`, zeros for those left to ggml and behind the last one."""
    x[:] = _ZERO
    for k in range(weights.shape[0]):
        is_done[k] = is_ordinary(weights[k].view(np.uint32))
        if is_done[k]:
            for j in range(_SUB_BLOCKS):
                for i in range(_SUB_BLOCK):
                    x[i, _SUB_BLOCKS * k + j] = weights[k, _SUB_BLOCK * j + i]


@part
def _search(x: Floats, inverse: Floats, sum_xl: Floats, sum_l2: Floats, found: Floats) -> None:
    """The scale whose levels explain most of the sub-block, each weight weighted by its square."""
    peak, scale, kept, best = found[_PEAK], found[_SCALE], found[_INVERSE], found[_BEST]
    _find_peaks(x, peak)
    for lane in range(LANES):
        kept[lane] = _LOWEST / peak[lane]
    _add_levels(x, kept, sum_xl, sum_l2)
    for lane in range(LANES):
        ratio = sum_xl[lane] / sum_l2[lane]
        scale[lane] = ratio if sum_l2[lane] != _ZERO else _ZERO
        best[lane] = scale[lane] * sum_xl[lane]
    for step in _STEPS:
        for lane in range(LANES):
            inverse[lane] = step / peak[lane]
        _add_levels(x, inverse, sum_xl, sum_l2)
        for lane in range(LANES):
            xl, l2 = sum_xl[lane], sum_l2[lane]
            is_better = (l2 > _ZERO) & (xl * xl > best[lane] * l2)
            ratio = xl / l2
            scale[lane] = ratio if is_better else scale[lane]
            best[lane] = ratio * xl if is_better else best[lane]
            kept[lane] = inverse[lane] if is_better else kept[lane]
    for lane in range(LANES):
        scale[lane] = _ZERO if abs(peak[lane]) < _NONE else scale[lane]


@part
def _find_peaks(x: Floats, peak: Floats) -> None:
    """The weight of the largest magnitude, the first of equal ones."""
    peak[:] = _ZERO
    for i in range(_SUB_BLOCK):
        for lane in range(LANES):
            value = x[i, lane]
            peak[lane] = value if abs(value) > abs(peak[lane]) else peak[lane]


@part
def _level_of(value: np.float32, inverse: np.float32) -> np.float32:
    level = nearest(inverse * value)
    level = level if level < _TOP else _TOP
    return level if level > _LOWEST else _LOWEST


@part
def _add_levels(x: Floats, inverse: Floats, sum_xl: Floats, sum_l2: Floats) -> None:
    sum_xl[:] = _ZERO
    sum_l2[:] = _ZERO
    for i in range(0, _SUB_BLOCK, 4):
        for lane in range(LANES):
            by, xl, l2 = inverse[lane], sum_xl[lane], sum_l2[lane]
            a, b, c, d = x[i, lane], x[i + 1, lane], x[i + 2, lane], x[i + 3, lane]
            xl, l2 = _with_level(a, _level_of(a, by), xl, l2)
            xl, l2 = _with_level(b, _level_of(b, by), xl, l2)
            xl, l2 = _with_level(c, _level_of(c, by), xl, l2)
            xl, l2 = _with_level(d, _level_of(d, by), xl, l2)
            sum_xl[lane], sum_l2[lane] = xl, l2


@part
def _with_level(
    value: np.float32, level: np.float32, sum_xl: np.float32, sum_l2: np.float32
) -> tuple[np.float32, np.float32]:
    weight = value * value
    return sum_xl + weight * value * level, sum_l2 + weight * level * level


@part
def _store_scales(scales: Floats, block: Bytes) -> bool:
    """Write d and the 16 scales, as multiples of it, the largest as -128; False if all are 0."""
    largest = _ZERO
    for j in range(_SUB_BLOCKS):
        largest = scales[j] if abs(scales[j]) > abs(largest) else largest
    if abs(largest) < _NONE:
        return False
    inverse = np.float32(-128.0) / largest
    d = half_bits(np.float32(1.0) / inverse)
    block[_D], block[_D + 1] = d & 255, d >> 8
    for j in range(_SUB_BLOCKS):
        scale = int(nearest_int(inverse * scales[j]))
        block[_SCALES + j] = (scale if scale < 127 else 127) & 255
    return True


@part
def _find_levels(weights: Floats, found: Floats, lane: int, block: Bytes, levels: Bytes) -> None:
    """Levels + 32 by the stored scales; where one is zero, those of the search remain."""
    d = half_value(block[_D], block[_D + 1])
    for j in range(_SUB_BLOCKS):
        by = d * np.float32(np.int8(block[_SCALES + j]))
        begin, end = _SUB_BLOCK * j, _SUB_BLOCK * (j + 1)
        if by != _ZERO:
            for i in range(begin, end):
                level = nearest_int(weights[i] / by)
                levels[i] = max(np.int32(-32), min(np.int32(31), level)) + 32
        elif abs(found[_PEAK, lane + j]) < _NONE:
            levels[begin:end] = 0
        else:
            for i in range(begin, end):
                levels[i] = np.uint8(_level_of(weights[i], found[_INVERSE, lane + j]) - _LOWEST)


@part
def _pack(levels: Bytes, block: Bytes) -> None:
    for half in range(2):
        for i in range(32):
            at = 128 * half + i
            a, b, c, d = levels[at], levels[at + 32], levels[at + 64], levels[at + 96]
            block[64 * half + i] = (a & 15) | ((c & 15) << 4)
            block[64 * half + 32 + i] = (b & 15) | ((d & 15) << 4)
            high = (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d >> 4) << 6)
            block[128 + 32 * half + i] = high
