"""Reductions: over a view's axes, or over the axes of its source that hold the same elements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.edits import add_shape
from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.moves import reshaped_tensor, turn_after
from edgeship.exporters.tflite.views import joined_runs, outermost_first, view_of, whole_axes
from edgeship.exporters.tflite.wiring import integers_of, module_name, shape_of

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT
    from edgeship.exporters.tflite.views import Atom

# fmt: off
_REDUCING: Final = frozenset({
    "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL",
})
# fmt: on
_CHOOSING: Final = frozenset({"ARG_MAX", "ARG_MIN"})


def reduce_source(
    tables: ModelT,
    producers: dict[int, OperatorT],
    operator: OperatorT,
    active: set[int] | None = None,
) -> bool:
    """Reduce a view's source over the axes that the view's axes are, if the others stay in order.

    Those that are in parts of the source's axes, channel groups say, are split from them first.
    True where that changed the file.

    Args:
        tables: Changed.
        producers: Operators by what they give.
        operator: Any.
        active: Sources of which the others may be in another order: a TRANSPOSE gives them theirs.
            Gets the result before it.
    """
    name = operator_name(tables, operator)
    if name not in _REDUCING and name not in _CHOOSING:
        return False
    view = view_of(tables, producers, int(operator.inputs[0]))
    values = integers_of(tables, operator, 1)
    if not view.turns or values is None:
        return False
    over = {value % len(view.axes) for value in values}
    kept = [atom for place, axis in enumerate(view.axes) if place not in over for atom in axis]
    gone = [atom for place in over for atom in view.axes[place]]
    ordered = sorted(kept, key=outermost_first)
    if kept != ordered and (active is None or view.source not in active):
        return False
    runs = {run: False for run in joined_runs(ordered)}
    runs |= {run: True for run in joined_runs(sorted(gone, key=outermost_first))}
    shape, axes = _reduced_shape(shape_of(tables, view.source), runs)
    if not axes or (name in _CHOOSING and len(axes) > 1):
        return False
    keeps = name in _REDUCING and bool(operator.builtinOptions.keepDims)
    wanted = shape_of(tables, int(operator.outputs[0]))
    with_ones = sorted({*axes, *(place for place, size in enumerate(shape) if size == 1)})
    if name in _REDUCING and not keeps and _rest(shape, with_ones, keeps=False) == wanted:
        axes = with_ones
    source = reshaped_tensor(tables, operator, view.source, shape)
    operator.inputs = [source, add_shape(tables, axes, f"{module_name(tables, operator)}/constant")]
    rest = _rest(shape, axes, keeps=keeps)
    if kept != ordered and active is not None:
        of_rest = {atom: _behind(ordered, atom) for atom in ordered}
        axes_left = [axis for place, axis in enumerate(view.axes) if place not in over or keeps]
        turned = tuple(tuple(of_rest[a] for a in axis if a in of_rest) for axis in axes_left)
        active.add(turn_after(tables, operator, rest, turned))
    elif rest != wanted:
        turn_after(tables, operator, rest, whole_axes(wanted))
    return True


def _behind(atoms: list[Atom], atom: Atom) -> Atom:
    """A run's stride where only these are left."""
    return atom[0], math.prod(size for size, stride in atoms if stride < atom[1])


def _rest(shape: list[int], axes: list[int], *, keeps: bool) -> list[int]:
    """Shape of what reducing these axes gives."""
    sizes = [1 if place in axes else size for place, size in enumerate(shape)]
    return sizes if keeps else [size for place, size in enumerate(sizes) if place not in axes]


def _reduced_shape(shape: list[int], runs: dict[Atom, bool]) -> tuple[list[int], list[int]]:
    """The shape to reduce the source in, and over which axes: its own shape where that does.

    Args:
        shape: Of the source.
        runs: Of its elements, and whether each is reduced.
    """
    own = [_run_around(axis[0], runs) if axis else False for axis in whole_axes(shape)]
    if None not in own:
        return shape, [place for place, is_reduced in enumerate(own) if is_reduced]
    ordered = sorted(runs, key=outermost_first)
    axes = [place for place, run in enumerate(ordered, 1) if runs[run]]
    return [1, *(size for size, _ in ordered)], axes


def _run_around(atom: Atom, runs: dict[Atom, bool]) -> bool | None:
    """Whether the run that the whole axis lies in is reduced; None where it lies in several."""
    size, stride = atom
    for (run_size, run_stride), is_reduced in runs.items():
        if run_stride <= stride and size * stride <= run_size * run_stride:
            return is_reduced
    return None
