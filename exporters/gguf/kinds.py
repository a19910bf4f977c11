"""Kinds: how GGUF stores the weights of one tensor, in blocks along its rows.

Source: ggml 0.25.3, `enum ggml_type` (ggml.h) and the `block_*` structures (ggml-common.h), as
vendored in llama-cpp-python 0.3.36. Names are those of `ggml_type`, in capitals.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """Storage type of one tensor, not of a file: a file of one precision mixes several."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    IQ4_NL = "IQ4_NL"
    IQ4_XS = "IQ4_XS"
    Q4_K = "Q4_K"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"

    @property
    def number(self) -> int:
        """Its value in `enum ggml_type`, which is what the file holds."""
        return _LAYOUTS[self].number

    @property
    def block(self) -> int:
        """Weights of one block; the columns of a tensor must be a multiple of it."""
        return _LAYOUTS[self].block

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return _LAYOUTS[self].block_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight, scales included."""
        return 8 * self.block_bytes / self.block

    @property
    def is_quantized(self) -> bool:
        """Whether weights share a scale: all kinds but the floats."""
        return self.block > 1

    def fits(self, columns: int) -> bool:
        """Whether rows of that many weights fall into whole blocks."""
        return columns > 0 and columns % self.block == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` weights.

        Raises:
            ValueError: `columns` are not a multiple of `block`.
        """
        if columns % self.block:
            message = f"{columns} columns are no multiple of {self.block}, the block of {self}"
            raise ValueError(message)
        return columns // self.block * self.block_bytes


class _Layout(NamedTuple):
    number: int
    block: int
    block_bytes: int


_LAYOUTS: Final = {
    Kind.F32: _Layout(0, 1, 4),
    Kind.F16: _Layout(1, 1, 2),
    Kind.BF16: _Layout(30, 1, 2),
    Kind.Q8_0: _Layout(8, 32, 2 + 32),
    Kind.Q4_0: _Layout(2, 32, 2 + 16),
    Kind.Q4_1: _Layout(3, 32, 4 + 16),
    Kind.Q5_0: _Layout(6, 32, 2 + 4 + 16),
    Kind.Q5_1: _Layout(7, 32, 4 + 4 + 16),
    Kind.IQ4_NL: _Layout(20, 32, 2 + 16),
    Kind.IQ4_XS: _Layout(23, 256, 2 + 2 + 4 + 128),
    Kind.Q4_K: _Layout(12, 256, 4 + 12 + 128),
    Kind.Q5_K: _Layout(13, 256, 4 + 12 + 32 + 128),
    Kind.Q6_K: _Layout(14, 256, 128 + 64 + 16 + 2),
}
