"""Half: float32 to the bits of float16 and back, in compiled code, which has no such type.

Source: IEEE 754-2019, binary16; to nearest even, as `GGML_FP32_TO_FP16`. No NaN and no infinity
comes here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeship.exporters.gguf.fast_compile import nearest, part

_SMALLEST_NORMAL: Final = np.float32(2.0**-14)
_STEPS: Final = np.float32(2.0**24)
_STEP: Final = np.float32(2.0**-24)
"""What subnormal float16 are multiples of."""
_REBIAS: Final = 127 - 15


@part
def half_bits(value: np.float32) -> int:
    """The nearest float16, as its 16 bits; `value` below 2**15 in magnitude."""
    bits = np.int64(np.float32(value).view(np.uint32))
    sign = (bits >> 16) & 0x8000
    size = abs(value)
    if size < _SMALLEST_NORMAL:
        return int(sign | np.int64(nearest(size * _STEPS)))
    # 13 bits of the mantissa go; a carry out of it raises the exponent, as it should
    magnitude = bits & 0x7FFFFFFF
    rounded = (magnitude + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    return int(sign | (rounded - (_REBIAS << 10)))


@part
def half_value(low: np.uint8, high: np.uint8) -> np.float32:
    """The float32 of the two bytes, exactly."""
    bits = np.int64(low) | (np.int64(high) << 8)
    exponent = (bits >> 10) & 31
    mantissa = bits & 0x3FF
    if exponent == 0:
        size = np.float32(mantissa) * _STEP
    else:
        size = np.uint32(((exponent + _REBIAS) << 23) | (mantissa << 13)).view(np.float32)
    return -size if bits & 0x8000 else size
