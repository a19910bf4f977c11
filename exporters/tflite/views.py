"""Views: tensors that only TRANSPOSE, RESHAPE and the like make of another one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.wiring import integers_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT

_RESHAPING: Final = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
MOVES: Final = _RESHAPING | {"TRANSPOSE"}
"""Operators whose output is a view of their first input."""

Atom = tuple[int, int]
"""Size and stride in elements of a run of elements."""
Axes = tuple[tuple[Atom, ...], ...]
"""For each axis of a view, outermost first, where its elements lie; none for an axis of size 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A tensor's elements as they lie in another one.

    Attributes:
        source: Index of that one.
        axes: Of the tensor.
        turns: How many TRANSPOSEs lie between.
    """

    source: int
    axes: Axes
    turns: int


def view_of(tables: ModelT, producers: dict[int, OperatorT], index: int) -> View:
    """The tensor as a view of the first one that it is a view of, itself at last."""
    shape, operator = shape_of(tables, index), producers.get(index)
    if operator is not None and 0 not in shape:
        name, source = operator_name(tables, operator), int(operator.inputs[0])
        if name == "TRANSPOSE" and (permutation := integers_of(tables, operator, 1)) is not None:
            before = view_of(tables, producers, source)
            axes = tuple(before.axes[axis] for axis in permutation)
            return View(source=before.source, axes=axes, turns=before.turns + 1)
        if name in _RESHAPING:
            before = view_of(tables, producers, source)
            if (found := reshaped_axes(before.axes, shape)) is not None:
                return View(source=before.source, axes=found, turns=before.turns)
            if (found := reshaped_axes(whole_axes(shape_of(tables, source)), shape)) is not None:
                return View(source=source, axes=found, turns=0)
    return View(source=index, axes=whole_axes(shape), turns=0)


def whole_axes(shape: Sequence[int]) -> Axes:
    """Those of a tensor that is a view of itself."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return tuple(
        ((size, stride),) if size > 1 else () for size, stride in zip(shape, strides, strict=True)
    )


def reshaped_axes(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """Those after a RESHAPE; None where a new axis is no product of whole runs."""
    left = list(runs_of(axes))
    result = []
    for axis_size in shape:
        size, found = axis_size, []
        while size > 1:
            count, stride = left.pop(0)
            if count > size and count % size == 0:
                left.insert(0, (count // size, stride))
                count, stride = size, stride * (count // size)
            if size % count:
                return None
            found.append((count, stride))
            size //= count
        result.append(joined_runs(found))
    return tuple(result)


def turned_axes(axes: Axes, shape: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Shape of the source, reshaped, and the permutation that makes it the view.

    The shape is the source's own, `shape`, where a permutation of that does. None where the view
    takes a RESHAPE after the TRANSPOSE.
    """
    if any(len(axis) > 1 for axis in axes):
        return None
    sizes = [axis[0][0] if axis else 1 for axis in axes]
    ones = [place for place, axis in enumerate(axes) if not axis]
    order = sorted((p for p, axis in enumerate(axes) if axis), key=lambda p: -axes[p][0][1])
    places = ones + order
    if len(shape) == len(axes) and [s for s in shape if s > 1] == [sizes[p] for p in order]:
        places = [(order if size > 1 else ones).pop(0) for size in shape]
    return [sizes[p] for p in places], [places.index(p) for p in range(len(axes))]


def places_of(axes: Axes) -> np.ndarray:
    """Place in the source of each element of the view, in the view's order; int64[elements]."""
    import numpy as np

    places = np.zeros(1, np.int64)
    for size, stride in runs_of(axes):
        places = np.add.outer(places, np.arange(size) * stride).ravel()
    return places


def runs_of(axes: Axes) -> tuple[Atom, ...]:
    """Runs of the source in the view's order, those that lie behind one another as one."""
    return joined_runs(atom for axis in axes for atom in axis)


def joined_runs(atoms: Iterable[Atom]) -> tuple[Atom, ...]:
    """Runs that lie behind one another in the source as one."""
    result: list[Atom] = []
    for size, stride in atoms:
        if result and result[-1][1] == size * stride:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return tuple(result)


def sizes_of(axes: Axes) -> list[int]:
    """Shape of the view."""
    return [math.prod(size for size, _ in axis) for axis in axes]


def outermost_first(atom: Atom) -> int:
    """Key to sort runs by where they lie in the source."""
    return -atom[1]
