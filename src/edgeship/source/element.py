"""Element types of stored tensors: sizes, and how their bits read as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger]
"""Elements as they are stored, each as an unsigned integer of its width, 1-D."""


class ElementType(StrEnum):
    """Names as safetensors writes them; the little-endian layout too.

    Source: safetensors README, "Format". BF16 is the upper half of an F32. F8_E4M3 is the "FN"
    kind without infinities, F8_E5M2 the upper half of an F16 (arXiv:2209.05433, table 1).
    """

    F64 = "F64"
    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    F8_E4M3 = "F8_E4M3"
    F8_E5M2 = "F8_E5M2"
    I64 = "I64"
    I32 = "I32"
    I16 = "I16"
    I8 = "I8"
    U64 = "U64"
    U32 = "U32"
    U16 = "U16"
    U8 = "U8"
    BOOL = "BOOL"

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return _ITEM_BYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether elements have an exponent."""
        return self in _FIRST_NON_FINITE

    @property
    def bits_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The numpy type of `Bits` of this type."""
        return np.dtype(f"<u{self.item_bytes}")


_ITEM_BYTES: Final[Mapping[ElementType, int]] = {
    ElementType.F64: 8,
    ElementType.F32: 4,
    ElementType.F16: 2,
    ElementType.BF16: 2,
    ElementType.F8_E4M3: 1,
    ElementType.F8_E5M2: 1,
    ElementType.I64: 8,
    ElementType.I32: 4,
    ElementType.I16: 2,
    ElementType.I8: 1,
    ElementType.U64: 8,
    ElementType.U32: 4,
    ElementType.U16: 2,
    ElementType.U8: 1,
    ElementType.BOOL: 1,
}
_FIRST_NON_FINITE: Final[Mapping[ElementType, int]] = {
    ElementType.F64: 0x7FF0_0000_0000_0000,
    ElementType.F32: 0x7F80_0000,
    ElementType.F16: 0x7C00,
    ElementType.BF16: 0x7F80,
    ElementType.F8_E4M3: 0x7F,
    ElementType.F8_E5M2: 0x7C,
}
"""Bits of the smallest magnitude that is no finite number (IEEE 754: exponent all ones)."""


def magnitudes(bits: Bits, element: ElementType) -> Bits:
    """Bits without the sign: of floats ordered as their absolute values, zero for both zeros.

    Of signed integers the absolute value, of the others the value; a new array.
    """
    if element.is_float:
        mask = bits.dtype.type((1 << (8 * element.item_bytes - 1)) - 1)
        return np.bitwise_and(bits, mask)
    if element in (ElementType.I64, ElementType.I32, ElementType.I16, ElementType.I8):
        # the most negative value keeps its bits, which read as unsigned are its absolute value
        absolute: Bits = np.abs(bits.view(f"<i{element.item_bytes}")).view(bits.dtype)
        return absolute
    return bits.copy()


def first_non_finite(element: ElementType) -> int | None:
    """The magnitude from which on elements are infinite or NaN; None where there are none."""
    return _FIRST_NON_FINITE.get(element)


def value_of(magnitude: int, element: ElementType) -> float:
    """The number of a magnitude, as `magnitudes` gives it."""
    return abs(float(widen(np.array([magnitude], element.bits_dtype), element)[0]))


def widen(bits: Bits, element: ElementType) -> NDArray[np.generic]:
    """The numbers, exactly: float64 from F64, float32 from the other floats, else as stored."""
    match element:
        case ElementType.F64 | ElementType.F32:
            return bits.view(f"<f{element.item_bytes}")
        case ElementType.F16:
            return bits.view("<f2").astype(np.float32)
        case ElementType.BF16:
            return (bits.astype("<u4") << 16).view("<f4")
        case ElementType.F8_E5M2:
            return (bits.astype("<u2") << 8).view("<f2").astype(np.float32)
        case ElementType.F8_E4M3:
            return np.take(_E4M3, bits)
        case ElementType.BOOL:
            return np.not_equal(bits, 0)
        case ElementType.U64 | ElementType.U32 | ElementType.U16 | ElementType.U8:
            return bits
        case ElementType.I64 | ElementType.I32 | ElementType.I16 | ElementType.I8:
            return bits.view(f"<i{element.item_bytes}")


def _e4m3_values() -> NDArray[np.float32]:
    """All 256: 1 sign, 4 exponent (bias 7), 3 mantissa bits; the largest magnitude is NaN."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (8 + mantissa) * 2.0 ** (exponent - 10)
    values = np.where(exponent == 0, mantissa * 2.0**-9, normal)
    values[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes >= 128, -values, values).astype(np.float32)


_E4M3: Final = _e4m3_values()
