"""IQ4_NL: blocks of 32 weights, a float16 scale and indices of 16 levels, two to a byte.

Source: `quantize_row_iq4_nl_impl` of ggml-quants.c, `block_iq4_nl` of ggml-common.h. The indices
are found by the scale before it is rounded.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import LANES, Bytes, Floats, is_ordinary, kernel, part
from edgeship.exporters.gguf.fast_half import half_bits
from edgeship.exporters.gguf.fast_nonlinear import BLOCK, WORK, search_nonlinear, store_indices

_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)


@kernel
def quantize_iq4_nl(weights: Floats, out: Bytes, is_done: Bytes) -> None:
    """Fill `out`, but for blocks that are left to ggml.

    Args:
        weights: float32[n, 32]; unchanged.
        out: uint8[n, 18].
        is_done: uint8[n]: 1, or 0 for those that are left.
    """
    x = np.empty((BLOCK, LANES), np.float32)
    work = np.empty((WORK, LANES), np.float32)
    scale = np.empty(LANES, np.float32)
    indices = np.empty(BLOCK, np.uint8)
    for first in range(0, weights.shape[0], LANES):
        count = min(LANES, weights.shape[0] - first)
        x[:] = _ZERO
        for k in range(count):
            is_done[first + k] = is_ordinary(weights[first + k].view(np.uint32))
            if is_done[first + k]:
                for i in range(BLOCK):
                    x[i, k] = weights[first + k, i]
        search_nonlinear(x, work, scale)
        for k in range(count):
            _store(weights[first + k], scale[k], indices, out[first + k])


@part
def _store(weights: Floats, scale: np.float32, indices: Bytes, block: Bytes) -> None:
    d = half_bits(scale)
    block[0], block[1] = d & 255, d >> 8
    inverse = _ONE / scale if scale != _ZERO else _ZERO
    store_indices(weights, inverse, indices, block[2:])
