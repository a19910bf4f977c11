"""Casts: integer inputs as int8 numbers, with no float tensor and no needless copy between."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.flatbuffer import operator_name, tensor_name, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT, TensorT

_EXACT: Final = Range(low=-128.0, high=127.0)
"""Of these int8 makes scale 1 and zero point 0: the stored number is the number."""


def exact_casts(tables: ModelT, ranges: Ranges) -> Ranges:
    """Ranges in which the integers that become floats, an attention mask say, are int8 as such.

    Those beyond int8 in the representative data keep their range, and their float tensor.
    """
    (graph,) = tables.subgraphs
    names = [tensor_name(graph.tensors[item.outputs[0]]) for item in _to_float(tables, graph)]
    known = {name: ranges.by_name[name] for name in names if name in ranges.by_name}
    fitting = [
        name for name, seen in known.items() if _EXACT.low <= seen.low and seen.high <= _EXACT.high
    ]
    return replace(ranges, by_name={**ranges.by_name, **dict.fromkeys(fitting, _EXACT)})


def join_casts(tables: ModelT) -> None:
    """Make CAST to float and QUANTIZE of it, scale 1, one CAST to int8; modifies `tables`."""
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = tables.subgraphs
    for cast in _to_float(tables, graph):
        readers = [item for item in graph.operators if cast.outputs[0] in list(item.inputs)]
        first = readers[0] if readers else None
        if first is None or not all(_is_plain_quantize(tables, graph, item) for item in readers):
            continue
        kept = first.outputs[0]
        replaced = {int(item.outputs[0]) for item in readers}
        cast.outputs = [kept]
        if cast.builtinOptions is not None:
            cast.builtinOptions.outDataType = schema.TensorType.INT8
        graph.operators = [item for item in graph.operators if item not in readers]
        for item in graph.operators:
            item.inputs = [kept if index in replaced else index for index in item.inputs]


def drop_copies(tables: ModelT) -> None:
    """Drop each QUANTIZE from int8 to int8 of the same scale and zero point; modifies `tables`.

    ai-edge-quantizer 0.10 puts one behind every GATHER of a constant (measured).
    """
    (graph,) = tables.subgraphs
    same: dict[int, int] = {}
    for operator in graph.operators:
        operator.inputs = [same.get(int(index), int(index)) for index in operator.inputs]
        if operator_name(tables, operator) == "QUANTIZE" and _is_copy(graph, operator):
            same[int(operator.outputs[0])] = operator.inputs[0]
    graph.operators = [item for item in graph.operators if int(item.outputs[0]) not in same]


def _is_copy(graph: SubGraphT, operator: OperatorT) -> bool:
    """Whether it gives what it takes; a file's output is a tensor of its own."""
    source, output = (graph.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
    if operator.outputs[0] in graph.outputs or type_name(source) != type_name(output):
        return False
    return _scale(source) is not None and _scale(source) == _scale(output)


def _scale(tensor: TensorT) -> tuple[list[float], list[int]] | None:
    """Scales and zero points; None where the tensor is not quantized."""
    item = tensor.quantization
    if item is None or item.scale is None or item.zeroPoint is None:
        return None
    return [float(scale) for scale in item.scale], [int(point) for point in item.zeroPoint]


def _to_float(tables: ModelT, graph: SubGraphT) -> Iterator[OperatorT]:
    for operator in list(graph.operators):
        if operator_name(tables, operator) == "CAST":
            types = [
                type_name(graph.tensors[item[0]]) for item in (operator.inputs, operator.outputs)
            ]
            if types[0] in {"INT32", "INT64", "BOOL"} and types[1] == "FLOAT32":
                yield operator


def _is_plain_quantize(tables: ModelT, graph: SubGraphT, operator: OperatorT) -> bool:
    """Whether it is a QUANTIZE to int8 that leaves the number as it is."""
    if operator_name(tables, operator) != "QUANTIZE":
        return False
    tensor = graph.tensors[operator.outputs[0]]
    return type_name(tensor) == "INT8" and _scale(tensor) == ([1.0], [0])
