"""Compile: Python loops over arrays become machine code that rounds as the C code does.

The C kernels take one block after the other and add up its sums in order, which keeps the processor
waiting. Taking 64 blocks at once, one per vector lane, keeps the order of the operations of each,
and with it every bit, as long as nothing is reassociated or fused: no fastmath.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from types import CellType, FunctionType
from typing import Final, ParamSpec, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

LANES: Final = 64
"""Blocks taken at once: of 16, 32, 64 and 128 the fastest (measured, with AVX-512)."""
LARGEST_BITS: Final = np.uint32(0x47000000)
"""2**15 as float32. Blocks with a larger magnitude, an infinity or a NaN are left to ggml: below it
no scale overflows float16. The bits of magnitudes are ordered as the magnitudes are."""
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_ROUND: Final = np.float32(12582912.0)
"""1.5 * 2**23: added to a float32 below 2**22 it leaves no bits for a fraction, so that adding it
rounds to nearest even. Source: `nearest_int` of ggml-quants.c."""
_MANTISSA: Final = np.int32(0x7FFFFF)
_MIDDLE: Final = np.int32(0x400000)


def kernel(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """`function` as machine code, compiled at its first call and kept for the next process.

    The code is kept where numba keeps it: beside the source, else in the user's cache directory
    (NUMBA_CACHE_DIR moves it), each file written under another name and then renamed. Where neither
    can be written it is compiled anew in each process.
    """
    try:
        code: Callable[_Parameters, _Result] = numba.njit(
            nogil=True, error_model="numpy", cache=True
        )(_bound_to_sources(function))
    except RuntimeError:  # "no locator available": there is nowhere to keep it
        code = part(function)
    return code


def part(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """`function` as a part of kernels, compiled with them.

    Division by zero gives inf or NaN, as in C: a check keeps loops from being vectorised.
    """
    code: Callable[_Parameters, _Result] = numba.njit(nogil=True, error_model="numpy")(function)
    return code


def _bound_to_sources(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """The same function, with a digest of all kernels' sources among its captured variables.

    numba finds kept code by the function's own file and captured variables. Without this, a change
    in a file of parts would go unnoticed, and the code of before it be used (measured).
    """
    assert isinstance(function, FunctionType)
    sources = sorted(Path(__file__).parent.glob("fast_*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    code = function.__code__.replace(co_freevars=("sources",))
    bound = FunctionType(code, function.__globals__, closure=(CellType(digest),))
    return update_wrapper(bound, function)


@part
def nearest(value: np.float32) -> np.float32:
    """The nearest integer, halves to even; `value` within +-2**22."""
    return (value + _ROUND) - _ROUND


@part
def nearest_int(value: np.float32) -> np.int32:
    """What `nearest_int` of ggml-quants.c gives for any bits, also far away and for NaN."""
    return (np.float32(value + _ROUND).view(np.int32) & _MANTISSA) - _MIDDLE


@part
def is_ordinary(bits: Bits) -> bool:
    """Whether all weights, given as their bits, are finite and not above `LARGEST_BITS`."""
    peak = np.uint32(0)
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        peak = magnitude if magnitude > peak else peak
    return bool(peak <= LARGEST_BITS)
