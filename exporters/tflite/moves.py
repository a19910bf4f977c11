"""Moves: the RESHAPEs and TRANSPOSEs that make a view, as few of them as do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.exporters.tflite.edits import add_shape, add_tensor, new_operator, set_operator
from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.views import (
    MOVES,
    View,
    outermost_first,
    runs_of,
    sizes_of,
    turned_axes,
    view_of,
    whole_axes,
)
from edgeship.exporters.tflite.wiring import (
    insert_operator,
    is_output,
    module_name,
    redirect_readers,
    shape_of,
)

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT
    from edgeship.exporters.tflite.views import Atom, Axes


def join_moves(tables: ModelT, producers: dict[int, OperatorT], operator: OperatorT) -> bool:
    """Several TRANSPOSEs in a row become one; those that change no order, a RESHAPE or nothing.

    True where that changed the file. Moves that nothing reads any more are left in it.
    """
    name, output = operator_name(tables, operator), int(operator.outputs[0])
    if name not in MOVES:
        return False
    view = view_of(tables, producers, output)
    runs = runs_of(view.axes)
    if view.turns and len(runs) <= 1:
        is_same = shape_of(tables, output) == shape_of(tables, view.source)
        if is_same and not is_output(tables, output):
            redirect_readers(tables, output, view.source)
        else:
            make_reshape(tables, operator, view.source)
        return True
    if name != "TRANSPOSE" or view.turns <= 1 or not is_quick(runs):
        return False
    make_moves(tables, operator, view)
    return True


def is_quick(runs: tuple[Atom, ...]) -> bool:
    """Whether one TRANSPOSE that moves these is quicker than several: a matrix, or many in a row.

    A channel shuffle is, a pixel shuffle of five runs is not: with four TRANSPOSEs, a convolution
    and the shuffle of its int8[1, 128, 128, 12] take 0.5 ms, with one 1.9 ms (LiteRT 2.3, one core
    of an x86-64 server; measured).
    """
    return len(runs) == 2 or (len(runs) == 3 and runs[0] == min(runs, key=outermost_first))


def make_moves(tables: ModelT, operator: OperatorT, view: View) -> None:
    """Give the operator's output from the view's source: RESHAPE, TRANSPOSE, RESHAPE as needed."""
    from ai_edge_litert import schema_py_generated as schema

    own = shape_of(tables, view.source)
    axes: Axes = view.axes
    if (found := turned_axes(axes, own)) is None:
        axes = tuple((atom,) for atom in runs_of(axes))
        found = turned_axes(axes, own)
    assert found is not None
    source = reshaped_tensor(tables, operator, view.source, found[0])
    constant = add_shape(tables, found[1], f"{module_name(tables, operator)}/constant")
    options = ("TransposeOptions", schema.TransposeOptionsT())
    set_operator(tables, operator, "TRANSPOSE", (source, constant), options)
    if sizes_of(axes) != shape_of(tables, int(operator.outputs[0])):
        shape = sizes_of(axes)
        turn_after(tables, operator, shape, whole_axes(shape))


def make_reshape(tables: ModelT, operator: OperatorT, source: int) -> None:
    """Make it a RESHAPE of this tensor that gives the operator's output."""
    from ai_edge_litert import schema_py_generated as schema

    shape = shape_of(tables, int(operator.outputs[0]))
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    constant = add_shape(tables, shape, f"{module_name(tables, operator)}/constant")
    set_operator(tables, operator, "RESHAPE", (source, constant), ("ReshapeOptions", options))


def reshaped_tensor(tables: ModelT, operator: OperatorT, index: int, shape: list[int]) -> int:
    """The tensor in this shape, for `operator` to read."""
    if shape_of(tables, index) == shape:
        return index
    element_type = tables.subgraphs[0].tensors[index].type
    made = add_tensor(tables, shape, element_type, f"{module_name(tables, operator)}/reshape")
    reshape = new_operator(tables, "RESHAPE", (index,), made)
    make_reshape(tables, reshape, index)
    insert_operator(tables, reshape, before=operator)
    return made


def turn_after(tables: ModelT, operator: OperatorT, shape: list[int], axes: Axes) -> int:
    """Let the operator give this shape, and what is behind it give what it gave before.

    Args:
        tables: Changed.
        operator: Changed.
        shape: Of the new tensor, which is returned.
        axes: Of the operator's old output, as a view of the new tensor.
    """
    output = int(operator.outputs[0])
    name = f"{module_name(tables, operator)}/{operator_name(tables, operator).lower()}"
    made = add_tensor(tables, shape, tables.subgraphs[0].tensors[output].type, name)
    operator.outputs = [made]
    behind = new_operator(tables, "RESHAPE", (made,), output)
    insert_operator(tables, behind, behind=operator)
    if len(runs_of(axes)) <= 1:
        make_reshape(tables, behind, made)
    else:
        make_moves(tables, behind, View(source=made, axes=axes, turns=1))
    return made


def drop_unread_moves(tables: ModelT) -> None:
    """Drop the moves whose result nothing reads."""
    (graph,) = tables.subgraphs
    read = {int(index) for index in graph.outputs}
    kept = []
    for item in reversed(graph.operators):
        is_move = operator_name(tables, item) in MOVES
        if not is_move or int(item.outputs[0]) in read:
            kept.append(item)
            read.update(int(index) for index in item.inputs)
    graph.operators = kept[::-1]
