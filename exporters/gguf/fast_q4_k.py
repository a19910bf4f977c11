"""Q4_K: super-blocks of 8 sub-blocks, each with a scale and a minimum of 6 bits; levels 0..15.

Source: `quantize_row_q4_K_ref` of ggml-quants.c, `block_q4_K` of ggml-common.h: float16 d and dmin,
12 bytes with the 6-bit scales and minima, then the levels, two to a byte, low half first, where
bytes 32 k .. 32 k + 31 hold sub-blocks 2 k and 2 k + 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import LANES, Bytes, Floats, kernel, part
from edgeship.exporters.gguf.fast_minimum import FOUND, SUB_BLOCK, WORK, search_minimum
from edgeship.exporters.gguf.fast_superblock import (
    AT_ONCE,
    HEAD,
    SUB_BLOCKS,
    SUPER_BLOCK,
    find_levels,
    gather,
    store_scales,
)

_TOP: Final = np.float32(15.0)
_STEPS: Final = np.float32(-1.0) + np.float32(0.1) * np.arange(21, dtype=np.float32) + _TOP
"""`rmin + rdelta * is + nmax`, each operation in float32."""


@kernel
def quantize_q4_k(weights: Floats, out: Bytes, is_done: Bytes) -> None:
    """Fill `out`, but for super-blocks that are left to ggml.

    Args:
        weights: float32[n, 256]; unchanged.
        out: uint8[n, 144].
        is_done: uint8[n]: 1, or 0 for those that are left.
    """
    x = np.empty((SUB_BLOCK, LANES), np.float32)
    work = np.empty((WORK, LANES), np.float32)
    found = np.empty((FOUND, LANES), np.float32)
    levels = np.empty(SUPER_BLOCK, np.uint8)
    for first in range(0, weights.shape[0], AT_ONCE):
        count = min(AT_ONCE, weights.shape[0] - first)
        gather(weights[first : first + count], x, is_done[first : first + count])
        search_minimum(x, work, found, _TOP, _STEPS)
        for k in range(count):
            block = out[first + k]
            store_scales(found, k * SUB_BLOCKS, block, is_done[first + k : first + k + 1])
            find_levels(weights[first + k], found, k * SUB_BLOCKS, block, levels, _TOP)
            _pack(levels, block)


@part
def _pack(levels: Bytes, block: Bytes) -> None:
    for pair in range(SUB_BLOCKS // 2):
        for i in range(SUB_BLOCK):
            low = levels[2 * SUB_BLOCK * pair + i]
            high = levels[2 * SUB_BLOCK * pair + SUB_BLOCK + i]
            block[HEAD + SUB_BLOCK * pair + i] = low | (high << 4)
