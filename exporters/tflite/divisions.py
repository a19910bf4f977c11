"""Divisions: int8 has none in older runtimes; by a positive number, they are two products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.exporters.tflite.edits import add_tensor, constant_values, new_operator
from edgeship.exporters.tflite.flatbuffer import is_constant, operator_name, tensor_name

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT


def divide_by_roots(tables: ModelT) -> None:
    """Compute each x / y, y = max(z, c) with a constant c > 0, as x * r * r, r = 1 / sqrt(y).

    That is a mean over the tokens that are not padding, and a norm: torch's clamp(min=1e-9).
    Exact but for float rounding. tflite_runtime 2.14 divides no int8 ("Div only supports FLOAT32,
    INT32 and quantized UINT8 now, got 9", measured); a table of 256 entries gives the root.

    Called on the float file, so that the new tensors are observed as the others. Modifies
    `tables`; float divisions by anything else stay.
    """
    (graph,) = tables.subgraphs
    producers = {int(index): item for item in graph.operators for index in item.outputs}
    made: list[OperatorT] = []
    for operator in graph.operators:
        if operator_name(tables, operator) == "DIV" and _is_positive(
            tables, producers.get(int(operator.inputs[1]))
        ):
            made += _products(tables, graph, operator)
        else:
            made.append(operator)
    graph.operators = made


def _is_positive(tables: ModelT, operator: OperatorT | None) -> bool:
    if operator is None or operator_name(tables, operator) != "MAXIMUM":
        return False
    operands = [tables.subgraphs[0].tensors[index] for index in operator.inputs]
    return any(
        is_constant(tables, tensor) and bool((constant_values(tables, tensor) > 0).all())
        for tensor in operands
    )


def _products(tables: ModelT, graph: SubGraphT, division: OperatorT) -> list[OperatorT]:
    """RSQRT and two MULs in place of the DIV; the last one gives its output."""
    from ai_edge_litert import schema_py_generated as schema

    dividend, divisor = (int(index) for index in division.inputs)
    output = int(division.outputs[0])
    place = tensor_name(graph.tensors[divisor]).rpartition("/")[0]
    root, half = (
        add_tensor(tables, graph.tensors[like].shape, schema.TensorType.FLOAT32, f"{place}/{name}")
        for like, name in ((divisor, "rsqrt"), (output, "mul"))
    )
    first, last = schema.MulOptionsT(), schema.MulOptionsT()
    last.fusedActivationFunction = division.builtinOptions.fusedActivationFunction
    return [
        new_operator(tables, "RSQRT", (divisor,), root),
        new_operator(tables, "MUL", (dividend, root), half, ("MulOptions", first)),
        new_operator(tables, "MUL", (half, root), output, ("MulOptions", last)),
    ]
