"""Blocks: the unit of work, a few rows of one tensor, from stored floats to bytes of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.layout import Placement
from edgeship.exporters.gguf.library import Bytes, Floats, Ggml
from edgeship.exporters.gguf.shards import read_rows
from edgeship.source.element import Bits, ElementType, first_non_finite, magnitudes, value_of
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorSource

_WEIGHTS: Final = 256 * 1024
"""Of a block, about: 1 MiB of float32. A quarter of it takes a fifth more CPU time for Q4_0, twice
 as much saves nothing (measured)."""
_HALF_LIMIT: Final = 65504.0
"""The largest float16: kinds hold their scales, or the weights themselves, in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowBlock:
    """Rows `first` to `first + count` of a tensor."""

    placement: Placement
    first: int
    count: int

    @property
    def offset(self) -> int:
        """Of its first byte, from the start of the data."""
        return self.placement.offset + self.first * self.placement.row_bytes

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.count * self.placement.plan.columns


def row_blocks(placements: Iterable[Placement]) -> Iterator[RowBlock]:
    """All rows of all tensors, in the order of the file; heads that are permuted stay whole."""
    for placement in placements:
        heads = placement.plan.permuted_heads
        unit = 1 if placement.plan.values is None else placement.rows
        if heads is not None:
            assert placement.plan.shape[0] % (2 * heads) == 0  # the blueprint's: halves of heads
            unit = placement.plan.shape[0] // heads
        columns = placement.plan.columns
        step = max(1, _WEIGHTS // (unit * columns)) * unit
        for first in range(0, placement.rows, step):
            count = min(step, placement.rows - first)
            yield RowBlock(placement=placement, first=first, count=count)


class BlockEncoder:
    """Makes the bytes of one block after the other; each thread has its own."""

    def __init__(self, source: TensorSource, ggml: Ggml, importance: Mapping[str, Floats]) -> None:
        self._source = source
        self._ggml = ggml
        self._importance = importance
        self._floats = np.empty(0, np.float32)
        self._bytes = np.empty(0, np.uint8)

    def encode(self, block: RowBlock) -> Bytes:
        """The block as it stands in the file; valid until the next call.

        Raises:
            ExportFailed: A weight is NaN or infinite, or too large for the kind.
            ConfigurationError: The checkpoint cannot be read any more.
        """
        plan, kind = block.placement.plan, block.placement.kind
        if plan.values is not None:
            return np.array(plan.values, "<f4").view(np.uint8)
        element = self._source.entries[plan.source].element
        bits = read_rows(self._source, plan, block.first, block.count)
        largest = _largest_magnitude(bits)
        limit = first_non_finite(element)
        if limit is not None and largest >= limit:
            raise _not_finite(bits, element, block)
        rows = self._widened(bits, element).reshape(block.count, plan.columns)
        size = block.count * block.placement.row_bytes
        if self._bytes.size < size:
            self._bytes = np.empty(size, np.uint8)
        out = self._bytes[:size]
        self._ggml.quantize(kind, rows, self._importance.get(plan.name), out=out)
        if value_of(largest, element) > _HALF_LIMIT and not self._ggml.is_valid(kind, out):
            raise _too_large(block, value_of(largest, element))
        if plan.permuted_heads is None:
            return out
        heads = plan.permuted_heads * block.weights // plan.elements
        return _interleaved(out, heads, plan.shape[0] // plan.permuted_heads)

    def _widened(self, bits: Bits, element: ElementType) -> Floats:
        if self._floats.size < bits.size:
            self._floats = np.empty(bits.size, np.float32)
        floats = self._floats[: bits.size]
        self._ggml.widen(element, bits.view(np.uint8), floats)
        return floats


def _interleaved(out: Bytes, heads: int, height: int) -> Bytes:
    """Rows of each head in the order that llama.cpp's RoPE takes: see `TensorPlan`.

    Rows are quantized one by one, so their bytes can be moved instead of the weights. Of a bias
    the numbers are moved, since vectors are never quantized.
    """
    halves = out.reshape(heads, 2, height // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1)


def _largest_magnitude(bits: Bits) -> int:
    """The largest of the elements without their sign, as bits.

    Floats are a sign and a magnitude: positive ones order as signed integers, negative ones as
    unsigned integers. Two passes without a copy: this runs over every weight.
    """
    sign = 1 << (8 * bits.itemsize - 1)
    return max(0, int(bits.view(f"<i{bits.itemsize}").max()), int(bits.max()) - sign)


def _not_finite(bits: Bits, element: ElementType, block: RowBlock) -> ExportFailed:
    limit = first_non_finite(element)
    sizes = magnitudes(bits, element)
    at = int(np.argmax(sizes >= np.array(limit, sizes.dtype)))
    row, column = divmod(at, block.placement.plan.columns)
    name = "infinity" if int(sizes[at]) == limit else "NaN"
    problem = Problem(
        where=f"{shown_name(block.placement.plan.source)}, row {block.first + row}",
        what="a weight is no finite number",
        expected="finite weights",
        found=f"{name} in column {column}",
        remedy="find out where training diverged, and export a checkpoint before that",
    )
    return ExportFailed(problem)


def _too_large(block: RowBlock, largest: float) -> ExportFailed:
    rows = f"rows {block.first} to {block.first + block.count - 1}"
    problem = Problem(
        where=f"{shown_name(block.placement.plan.source)}, {rows}",
        what=f"a weight is too large for {block.placement.kind}",
        expected=f"magnitudes that float16 holds, up to {_HALF_LIMIT:g}",
        found=f"{largest:g}",
        remedy="check the checkpoint: trained weights are smaller by orders of magnitude",
    )
    return ExportFailed(problem)
