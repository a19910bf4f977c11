"""Chains of operators as .tflite files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeship.exporters.tflite.edits import add_tensor, new_operator
from edgeship.exporters.tflite.flatbuffer import write_model

SHAPE = (1, 4, 4, 8)
OPTIONS = {"ADD": "AddOptions", "DIV": "DivOptions", "HARD_SWISH": "HardSwishOptions"}


def write_operators(path: Path, kind: str, operators: Sequence[tuple[str, Sequence[int]]]) -> Path:
    """Each operator is its name and its inputs; tensor 0 is the file's input, the last its output.

    Operator n gives tensor n + 1; those of int8 have a scale.
    """
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers, graph.tensors = [schema.BufferT()], []
    for index in range(len(operators) + 1):
        add_tensor(model, SHAPE, getattr(schema.TensorType, kind), f"t{index}")
        if kind == "INT8":
            quantization: Any = schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = [0.05], [3]
            graph.tensors[-1].quantization = quantization
    graph.operators = [
        new_operator(
            model, name, inputs, index + 1, (OPTIONS[name], getattr(schema, f"{OPTIONS[name]}T")())
        )
        for index, (name, inputs) in enumerate(operators)
    ]
    graph.inputs, graph.outputs = [0], [len(operators)]
    path.write_bytes(write_model(model))
    return path


@pytest.fixture(scope="session")
def operators_file() -> Callable[[Path, str, Sequence[tuple[str, Sequence[int]]]], Path]:
    """`write_operators`."""
    return write_operators
