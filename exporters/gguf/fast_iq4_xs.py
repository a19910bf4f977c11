"""IQ4_XS: super-blocks of 8 blocks of 32 weights, each with a scale of 6 bits, and 16 levels.

Source: `quantize_row_iq4_nl_impl` of ggml-quants.c, `block_iq4_xs` of ggml-common.h: float16 d, the
high 2 bits of the 8 scales, their low 4 bits, then indices as in IQ4_NL. Scales and indices are
found by d before it is rounded.
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
    nearest_int,
    part,
)
from edgeship.exporters.gguf.fast_half import half_bits
from edgeship.exporters.gguf.fast_nonlinear import BLOCK, WORK, search_nonlinear, store_indices

_SUPER_BLOCK: Final = 256
_BLOCKS: Final = _SUPER_BLOCK // BLOCK
_AT_ONCE: Final = LANES // _BLOCKS
_HIGH: Final = 2
_LOW: Final = 4
_INDICES: Final = 8
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_SPAN: Final = np.float32(32.0)


@kernel
def quantize_iq4_xs(weights: Floats, out: Bytes, is_done: Bytes) -> None:
    """Fill `out`, but for super-blocks that are left to ggml.

    Args:
        weights: float32[n, 256]; unchanged.
        out: uint8[n, 136].
        is_done: uint8[n]: 1, or 0 for those that are left.
    """
    x = np.empty((BLOCK, LANES), np.float32)
    work = np.empty((WORK, LANES), np.float32)
    scale = np.empty(LANES, np.float32)
    indices = np.empty(BLOCK, np.uint8)
    for first in range(0, weights.shape[0], _AT_ONCE):
        count = min(_AT_ONCE, weights.shape[0] - first)
        x[:] = _ZERO
        for k in range(count):
            is_done[first + k] = is_ordinary(weights[first + k].view(np.uint32))
            if is_done[first + k]:
                for j in range(_BLOCKS):
                    for i in range(BLOCK):
                        x[i, _BLOCKS * k + j] = weights[first + k, BLOCK * j + i]
        search_nonlinear(x, work, scale)
        for k in range(count):
            scales = scale[_BLOCKS * k : _BLOCKS * (k + 1)]
            _store(weights[first + k], scales, indices, out[first + k])


@part
def _store(weights: Floats, scales: Floats, indices: Bytes, block: Bytes) -> None:
    largest = _ZERO
    for j in range(_BLOCKS):
        largest = scales[j] if abs(scales[j]) > abs(largest) else largest
    d = -largest / _SPAN
    bits = half_bits(d)
    block[0], block[1] = bits & 255, bits >> 8
    block[_HIGH:_INDICES] = 0
    inverse = _ONE / d if d != _ZERO else _ZERO
    for j in range(_BLOCKS):
        level = int(nearest_int(inverse * scales[j]))
        level = -32 if level < -32 else level
        level = 31 if level > 31 else level
        by = d * np.float32(level)
        to_index = _ONE / by if by != _ZERO else _ZERO
        at = _INDICES + BLOCK // 2 * j
        store_indices(
            weights[BLOCK * j : BLOCK * (j + 1)], to_index, indices, block[at : at + BLOCK // 2]
        )
        block[_LOW + j // 2] |= ((level + 32) & 15) << (4 * (j % 2))
        block[_HIGH + j // 4] |= ((level + 32) >> 4) << (2 * (j % 4))
