"""Tensor source: named tensors of which parts are read when they are wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from edgeship.source.element import Bits, ElementType, widen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_BYTES: Final = 4 << 20
"""Of the file, at most, in one block; a choice: larger ones are not faster, and cost memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """What is known of a tensor before any of it is read."""

    name: str
    element: ElementType
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements; 1 of a scalar."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements."""
        return self.elements * self.element.item_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A run of elements in storage order: a block as `spans` cuts them."""

    start: int
    count: int


class TensorSource(Protocol):
    """Where tensors are; the one who opened it closes it."""

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Every tensor, in the order of the file."""

    def read(self, name: str, span: Span) -> Bits:
        """That run of elements, 1-D, not to be written to.

        Raises:
            ConfigurationError: The file has become shorter, or cannot be read any more.
        """


def spans(entry: TensorEntry) -> Iterator[Span]:
    """The whole tensor in runs of at most `BLOCK_BYTES`.

    A run holds whole rows (all that one index of the first axis selects) where a row fits, else
    whole units (one index of the first two axes) of one row where a unit fits.
    """
    limit = BLOCK_BYTES // entry.element.item_bytes
    total = entry.elements
    row, unit = row_elements(entry.shape), unit_elements(entry.shape)
    if total and row <= limit:
        yield from _cut(0, total, limit // row * row)
    elif total:
        step = limit // unit * unit if unit <= limit else limit
        for start in range(0, total, row):
            if unit <= limit:
                yield from _cut(start, row, step)
            else:
                for inner in range(start, start + row, unit):
                    yield from _cut(inner, unit, step)


def blocks(source: TensorSource, name: str) -> Iterator[NDArray[np.generic]]:
    """The tensor's numbers, 1-D in storage order, widened as by `widen`, a block at a time."""
    entry = source.entries[name]
    for span in spans(entry):
        yield widen(source.read(name, span), entry.element)


def row_elements(shape: tuple[int, ...]) -> int:
    """Elements below one index of the first axis; 1 of a scalar."""
    return math.prod(shape[1:])


def unit_elements(shape: tuple[int, ...]) -> int:
    """Elements below one index of the first two axes: a convolution's kernel."""
    return math.prod(shape[2:])


def _cut(start: int, count: int, step: int) -> Iterator[Span]:
    for offset in range(0, count, step):
        yield Span(start=start + offset, count=min(step, count - offset))
