"""Operators in float16: which compute in it, and which of their tensors may be it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

NEUTRAL: Final = frozenset({"Cast", "Shape", "Size"})
"""Take any type and give one that does not follow from it."""
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""What float16 is for: these are in it unless something speaks against that."""
_SENSITIVE: Final = frozenset(
    {
        "CumSum",
        "GlobalAveragePool",
        "GlobalLpPool",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        # e**12 and 300**2 are beyond float16; an angle above 2048 has lost its fraction in it
        "Cos",
        "Cosh",
        "Exp",
        "Log",
        "Mish",
        "Pow",
        "Reciprocal",
        "Sin",
        "Sinh",
        "Softplus",
        "Tan",
    }
)
"""Sums over many values, and functions that leave float16's range or precision."""
_HALF: Final = "tensor(float16)"


def is_sensitive(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether the operator stays in float32 whatever its values.

    A division by an activation does: a divisor that float16 rounds to 0 makes it infinite.
    """
    if node.op_type == "Div":
        return node.input[1] not in constants
    return node.op_type in _SENSITIVE or any(_subgraphs(node))


def half_positions(node: onnx.NodeProto, opset: int) -> tuple[frozenset[int], frozenset[int]]:
    """Positions of the inputs and of the outputs whose type may be float16.

    Source: the operator's schema; scales of a Resize, for one, are float32 beside any type.
    """
    inputs, outputs = _formal_parameters(node.op_type, opset)
    return _positions(inputs, len(node.input)), _positions(outputs, len(node.output))


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Every name that the node's subgraphs mention: some are tensors of the graph around them."""
    found: set[str] = set()
    for graph in _subgraphs(node):
        found.update(value.name for value in graph.output)
        for inner in graph.node:
            found.update(inner.input)
            found |= captured_names(inner)
    return found


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


@cache
def _formal_parameters(kind: str, opset: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    schema = onnx.defs.get_schema(kind, opset, "")
    return (
        tuple(_HALF in parameter.types for parameter in schema.inputs),
        tuple(_HALF in parameter.types for parameter in schema.outputs),
    )


def _positions(allowed: tuple[bool, ...], count: int) -> frozenset[int]:
    """The last formal parameter stands for all that follow: it may be variadic."""
    if not allowed:
        return frozenset()
    return frozenset(index for index in range(count) if allowed[min(index, len(allowed) - 1)])
