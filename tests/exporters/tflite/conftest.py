"""Files put together by hand, and what LiteRT makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgeship.exporters.tflite.flatbuffer import ModelT, TensorT, write_model

Activation = tuple[str, tuple[int, ...]]
"""Element type in the schema, and shape."""
Operator = tuple[str, tuple[str, ...], str, Mapping[str, object]]
"""Name in the schema, names of its inputs and of its output, options."""


def operator_options(name: str, settings: Mapping[str, object]) -> tuple[int, Any]:
    from ai_edge_litert import schema_py_generated as schema

    joined = "".join(part.capitalize() for part in name.split("_"))
    joined = {"GATHER_ND": "GatherNd", "SELECT_V2": "SelectV2"}.get(name, joined)
    joined = {"MAXIMUM": "MaximumMinimum", "SUM": "Reducer"}.get(name, joined)
    kind = getattr(schema, f"{joined}OptionsT", None)
    if kind is None:
        return schema.BuiltinOptions.NONE, None
    options = kind()
    for key, value in settings.items():
        setattr(options, key, value)
    return getattr(schema.BuiltinOptions, f"{joined}Options"), options


def handmade_tables(
    tensors: Mapping[str, Activation | np.ndarray],
    operators: Sequence[Operator],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> ModelT:
    from ai_edge_litert import schema_py_generated as schema

    names = list(tensors)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors = [handmade_tensor(model, name, item) for name, item in tensors.items()]
    model.operatorCodes, graph.operators = [], []
    for name, read, written, settings in operators:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        operator.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        operator.inputs = [names.index(item) for item in read]
        operator.outputs = [names.index(written)]
        operator.builtinOptionsType, operator.builtinOptions = operator_options(name, settings)
        graph.operators.append(operator)
    graph.inputs = [names.index(item) for item in inputs]
    graph.outputs = [names.index(item) for item in outputs]
    return model


def handmade_tensor(model: ModelT, name: str, item: Activation | np.ndarray) -> TensorT:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.buffer = name.encode(), 0
    if isinstance(item, np.ndarray):
        kind, shape = {"bool": "BOOL"}.get(str(item.dtype), str(item.dtype).upper()), item.shape
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(item.tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    else:
        kind, shape = item
    tensor.type, tensor.shape = getattr(schema.TensorType, kind), list(shape)
    return tensor


def run_file(content: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs as real numbers, whatever the file holds; float inputs are quantized first."""
    from ai_edge_litert.interpreter import Interpreter

    session = Interpreter(model_content=content, num_threads=1)
    session.allocate_tensors()
    for detail in session.get_input_details():
        values, (scale, zero_point) = inputs[detail["name"]], detail["quantization"]
        if scale:
            values = np.clip(np.round(values / scale) + zero_point, -128, 127)
        session.set_tensor(detail["index"], values.astype(detail["dtype"]))
    session.invoke()
    results = {}
    for detail in session.get_output_details():
        values, (scale, zero_point) = session.get_tensor(detail["index"]), detail["quantization"]
        if scale:
            values = (values.astype(np.float32) - zero_point) * np.float32(scale)
        results[detail["name"]] = values
    return results


def run_tables(tables: ModelT, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run_file(write_model(tables), inputs)


@pytest.fixture(scope="session")
def handmade() -> Callable[..., ModelT]:
    """`handmade_tables`."""
    return handmade_tables


@pytest.fixture(scope="session")
def litert() -> Callable[[ModelT, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """`run_tables`."""
    return run_tables
