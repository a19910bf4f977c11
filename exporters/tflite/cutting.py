"""Cutting: one operator of a .tflite file in a file of its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.flatbuffer import is_constant, write_model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeship.exporters.tflite.flatbuffer import ModelT

_ABSENT: Final = -1
"""schema.fbs, table Operator: an optional input that is left out."""


def cut_operator(tables: ModelT, place: int) -> bytes:
    """A file of one operator, whose activations are the file's inputs and outputs.

    Constants come with it, and so do names, types and scales.

    Args:
        tables: A file's; left as they are.
        place: In its first graph's list of operators, from 0 on.
    """
    from ai_edge_litert import schema_py_generated as schema

    (source, *_) = tables.subgraphs
    operator = copy.copy(source.operators[place])
    read, written = _indices(operator.inputs), _indices(operator.outputs)
    used = list(dict.fromkeys(index for index in (*read, *written) if index != _ABSENT))
    graph, made = schema.SubGraphT(), schema.ModelT()
    graph.tensors, made.buffers = [], [schema.BufferT()]
    for index in used:
        tensor = copy.copy(source.tensors[index])
        buffer = tables.buffers[tensor.buffer]
        tensor.buffer = 0
        if is_constant(tables, source.tensors[index]):
            tensor.buffer = len(made.buffers)
            made.buffers.append(buffer)
        graph.tensors.append(tensor)
    places = {_ABSENT: _ABSENT} | {old: new for new, old in enumerate(used)}
    operator.inputs = [places[index] for index in read]
    operator.outputs = [places[index] for index in written]
    operator.intermediates = None
    made.version, made.subgraphs = tables.version, [graph]
    made.operatorCodes = [tables.operatorCodes[operator.opcodeIndex]]
    operator.opcodeIndex = 0
    graph.operators, graph.outputs = [operator], list(operator.outputs)
    graph.inputs = [
        places[index]
        for index in dict.fromkeys(read)
        if index != _ABSENT and not is_constant(tables, source.tensors[index])
    ]
    return write_model(made)


def _indices(values: Iterable[int] | None) -> list[int]:
    return [] if values is None else [int(value) for value in values]
