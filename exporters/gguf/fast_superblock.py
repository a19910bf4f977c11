"""Super-block: what Q4_K and Q5_K share before and after the search: 8 sub-blocks of 32 weights.

Source: `quantize_row_q4_K_ref` and `get_scale_min_k4` of ggml-quants.c. Scales and minima become
multiples of d and dmin, in 6 bits each; the levels are then found again by what has been stored.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import (
    LANES,
    Bytes,
    Floats,
    is_ordinary,
    nearest_int,
    part,
)
from edgeship.exporters.gguf.fast_half import half_bits, half_value
from edgeship.exporters.gguf.fast_minimum import (
    HIGH,
    INVERSE,
    LOW,
    MINIMUM,
    NEAREST,
    ORIGIN,
    SCALE,
    SUB_BLOCK,
    level_of,
)

SUPER_BLOCK: Final = 256
SUB_BLOCKS: Final = SUPER_BLOCK // SUB_BLOCK
AT_ONCE: Final = LANES // SUB_BLOCKS
HEAD: Final = 4 + 12
"""Bytes of d, dmin, scales and minima."""
_ZERO: Final = np.float32(0.0)
_LARGEST: Final = 63
_TOP: Final = np.float32(_LARGEST)
_NARROW: Final = np.float32(1e-12)
"""Sub-blocks of a smaller range, but not none, are left to ggml: the errors, of the order of its
cube, become subnormal, and then say nothing about the magnitudes that come up."""
_CLOSE: Final = np.float32(1e-3)
"""Nor are those where a candidate's minimum came this close to the maximum, in ranges: a level
before it is cut to 0..top may exceed 2**22, where `nearest_int` is anything. Above, none does: an
accepted fit is within 8 ranges of each weight, so its minimum within 250 of them."""
_SCALES: Final = 4


@part
def gather(weights: Floats, x: Floats, is_done: Bytes) -> None:
    """Sub-blocks to columns of `x`, zeros for those left to ggml and behind the last one."""
    x[:] = _ZERO
    for k in range(weights.shape[0]):
        is_done[k] = is_ordinary(weights[k].view(np.uint32))
        if is_done[k]:
            for j in range(SUB_BLOCKS):
                for i in range(SUB_BLOCK):
                    x[i, SUB_BLOCKS * k + j] = weights[k, SUB_BLOCK * j + i]


@part
def store_scales(found: Floats, lane: int, block: Bytes, is_done: Bytes) -> None:
    """Write d, dmin and the 6-bit scales and minima of the 8 sub-blocks from `lane` on."""
    max_scale, max_minimum = _ZERO, _ZERO
    for j in range(lane, lane + SUB_BLOCKS):
        max_scale = max(max_scale, found[SCALE, j])
        max_minimum = max(max_minimum, -found[MINIMUM, j])
        extent = found[HIGH, j] - found[LOW, j]
        if extent != _ZERO and (extent < _NARROW or found[NEAREST, j] < _CLOSE * extent):
            is_done[0] = 0
    by_scale = _TOP / max_scale if max_scale > _ZERO else _ZERO
    by_minimum = _TOP / max_minimum if max_minimum > _ZERO else _ZERO
    d, dmin = half_bits(max_scale / _TOP), half_bits(max_minimum / _TOP)
    block[0], block[1] = d & 255, d >> 8
    block[2], block[3] = dmin & 255, dmin >> 8
    for j in range(SUB_BLOCKS):
        scale = _six_bits(by_scale * found[SCALE, lane + j])
        minimum = _six_bits(by_minimum * -found[MINIMUM, lane + j])
        if j < SUB_BLOCKS // 2:
            block[_SCALES + j] = scale
            block[_SCALES + 4 + j] = minimum
        else:
            block[_SCALES + 4 + j] = (scale & 15) | ((minimum & 15) << 4)
            block[_SCALES + j - 4] |= (scale >> 4) << 6
            block[_SCALES + j] |= (minimum >> 4) << 6


@part
def _six_bits(value: np.float32) -> int:
    """The nearest of 0..63, by way of a byte: what is negative comes out as 63."""
    byte = int(nearest_int(value)) & 255
    return byte if byte < _LARGEST else _LARGEST


@part
def find_levels(
    weights: Floats, found: Floats, lane: int, block: Bytes, levels: Bytes, top: np.float32
) -> None:
    """Levels by the stored scales; where one is stored as zero, those of the search remain."""
    d = half_value(block[0], block[1])
    dmin = half_value(block[2], block[3])
    last = np.int32(top)
    for j in range(SUB_BLOCKS):
        if j < SUB_BLOCKS // 2:
            scale = block[_SCALES + j] & 63
            minimum = block[_SCALES + 4 + j] & 63
        else:
            scale = (block[_SCALES + 4 + j] & 15) | ((block[_SCALES + j - 4] >> 6) << 4)
            minimum = (block[_SCALES + 4 + j] >> 4) | ((block[_SCALES + j] >> 6) << 4)
        by, less = d * np.float32(scale), dmin * np.float32(minimum)
        begin = SUB_BLOCK * j
        if by != _ZERO:
            for i in range(begin, begin + SUB_BLOCK):
                level = nearest_int((weights[i] + less) / by)
                levels[i] = max(np.int32(0), min(last, level))
        elif found[HIGH, lane + j] == found[LOW, lane + j]:
            levels[begin : begin + SUB_BLOCK] = 0
        else:
            inverse, origin = found[INVERSE, lane + j], found[ORIGIN, lane + j]
            for i in range(begin, begin + SUB_BLOCK):
                levels[i] = np.uint8(level_of(weights[i], inverse, origin, top))
