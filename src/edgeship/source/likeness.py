"""Likeness: cosines between blocks of two checkpoints, by a sample of their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.source.architecture import is_weight
from edgeship.source.element import widen
from edgeship.source.tensor_name import BlockGroup, split_at_index
from edgeship.source.tensor_source import Span, TensorEntry, TensorSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLED_ROLES: Final = 4
_SAMPLED_PIECES: Final = 16
_PIECE_ELEMENTS: Final = 1024
"""65,536 weights of a block: cosines of unrelated ones are then about 1/256 (= 65,536^-1/2)."""


def block_cosines(
    source: TensorSource, group: BlockGroup, other_source: TensorSource, counterpart: BlockGroup
) -> NDArray[np.float64] | None:
    """float64[student blocks, teacher blocks] of the largest roles that all of them have alike."""
    ours, theirs = _block_shapes(source, group), _block_shapes(other_source, counterpart)
    everywhere = [
        (rest, shape)
        for rest, shape in next(iter(ours.values())).items()
        if all(shapes.get(rest) == shape for shapes in (*ours.values(), *theirs.values()))
    ]
    everywhere.sort(key=lambda item: (-math.prod(item[1]), item[0]))
    rests = [rest for rest, _ in everywhere[:_SAMPLED_ROLES]]
    if not rests:
        return None
    mine = _unit_sketches(source, group, rests)
    other = _unit_sketches(other_source, counterpart, rests)
    return mine @ other.T


def _block_shapes(source: TensorSource, group: BlockGroup) -> dict[int, dict[str, tuple[int, ...]]]:
    """Shapes of the float weights of each block, by the rest of their name."""
    shapes: dict[int, dict[str, tuple[int, ...]]] = {index: {} for index in group.indices}
    for name, entry in source.entries.items():
        split = split_at_index(name)
        is_float_weight = is_weight(entry) and entry.element.is_float and entry.elements > 0
        if split is not None and split[0] == group.prefix and is_float_weight:
            shapes[split[1]][split[2]] = entry.shape
    return shapes


def _unit_sketches(
    source: TensorSource, group: BlockGroup, rests: Sequence[str]
) -> NDArray[np.float64]:
    """float64[blocks, samples], each row of length 1; of zeros or of what is not finite, zeros."""
    names = _names_by_place(source.entries, group)
    rows = []
    for index in group.indices:
        parts = [_sample(source, names[index, rest]) for rest in rests]
        row = np.concatenate(parts)
        length = float(np.linalg.norm(row))
        rows.append(row / length if 0 < length < np.inf else np.zeros_like(row))
    return np.stack(rows)


def _names_by_place(
    entries: Mapping[str, TensorEntry], group: BlockGroup
) -> dict[tuple[int, str], str]:
    splits = ((name, split_at_index(name)) for name in entries)
    return {
        (split[1], split[2]): name
        for name, split in splits
        if split is not None and split[0] == group.prefix
    }


def _sample(source: TensorSource, name: str) -> NDArray[np.float64]:
    """Up to 16 pieces of 1,024 elements at even distances: the same of every equal shape."""
    entry = source.entries[name]
    count = min(_PIECE_ELEMENTS, entry.elements)
    pieces = min(_SAMPLED_PIECES, -(-entry.elements // count))
    starts = np.linspace(0, entry.elements - count, pieces).astype(np.int64)
    read = [source.read(name, Span(start=int(start), count=count)) for start in starts]
    return widen(np.concatenate(read), entry.element).astype(np.float64)
