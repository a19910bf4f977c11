"""Wiring: which operators give and read a tensor, and which tensors nothing needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.edits import constant_values
from edgeship.exporters.tflite.flatbuffer import is_constant, tensor_name, type_name
from edgeship.exporters.tflite.naming import module_of

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT

_TENSOR_LISTS: Final = ("inputs", "outputs", "intermediates")


def shape_of(tables: ModelT, index: int) -> list[int]:
    """Of one tensor; empty for a scalar."""
    shape = tables.subgraphs[0].tensors[index].shape
    return [] if shape is None else [int(size) for size in shape]


def integers_of(tables: ModelT, operator: OperatorT, position: int) -> list[int] | None:
    """The integers of one input; None where they are not in the file."""
    tensor = tables.subgraphs[0].tensors[operator.inputs[position]]
    if not is_constant(tables, tensor):
        return None
    return [int(value) for value in constant_values(tables, tensor).ravel()]


def module_name(tables: ModelT, operator: OperatorT) -> str:
    """Path of the torch module that an operator's first output is named after."""
    return module_of(tensor_name(tables.subgraphs[0].tensors[operator.outputs[0]]))


def is_weight(tables: ModelT, index: int) -> bool:
    """Whether the file holds its values, and they are float32."""
    tensor = tables.subgraphs[0].tensors[index]
    return is_constant(tables, tensor) and type_name(tensor) == "FLOAT32"


def is_output(tables: ModelT, index: int) -> bool:
    """Whether the file gives it."""
    return index in list(tables.subgraphs[0].outputs)


def producers_by_output(tables: ModelT) -> dict[int, OperatorT]:
    """Operators by the indices of what they give."""
    return {int(index): item for item in tables.subgraphs[0].operators for index in item.outputs}


def readers_of(tables: ModelT, index: int) -> list[OperatorT]:
    """Operators that read one tensor, in the file's order."""
    return [item for item in tables.subgraphs[0].operators if index in list(item.inputs)]


def redirect_readers(tables: ModelT, index: int, other: int) -> None:
    """Let everything that reads one tensor read the other."""
    for item in readers_of(tables, index):
        item.inputs = [other if place == index else int(place) for place in item.inputs]


def insert_operator(
    tables: ModelT,
    made: OperatorT,
    *,
    before: OperatorT | None = None,
    behind: OperatorT | None = None,
) -> None:
    """Put an operator before or behind one that is in the graph."""
    present = tables.subgraphs[0].operators
    (place,) = (place for place, item in enumerate(present) if item is before or item is behind)
    present.insert(place + (behind is not None), made)


def drop_unused(tables: ModelT) -> None:
    """Let tensors that nothing uses go, and buffers that no tensor has."""
    (graph,) = tables.subgraphs
    lists = [getattr(item, name) for item in graph.operators for name in _TENSOR_LISTS]
    lists += [graph.inputs, graph.outputs]
    used = {int(index) for item in lists if item is not None for index in item}
    kept = sorted(used - {-1})
    places = {-1: -1} | {old: new for new, old in enumerate(kept)}
    graph.tensors = [graph.tensors[old] for old in kept]
    for owner, names in [(graph, ("inputs", "outputs"))] + [
        (item, _TENSOR_LISTS) for item in graph.operators
    ]:
        for name in names:
            if (indices := getattr(owner, name)) is not None:
                setattr(owner, name, [places[int(index)] for index in indices])
    for signature in tables.signatureDefs or ():
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = places[entry.tensorIndex]
    holders = [*graph.tensors, *(tables.metadata or ())]
    buffers = sorted({0, *(item.buffer for item in holders)})  # 0 stands for no bytes
    numbers = {old: new for new, old in enumerate(buffers)}
    tables.buffers = [tables.buffers[old] for old in buffers]
    for item in holders:
        item.buffer = numbers[item.buffer]
