"""Files of a few operators, put together by hand, and a way to run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.flatbuffer import (
    operator_name,
    operators,
    read_model,
    tensor_name,
    type_name,
    write_model,
)

_TYPES = {np.dtype(np.float32): "FLOAT32", np.dtype(np.int32): "INT32"}


class Tiny:
    """One subgraph; tensors are named, and referred to by name."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def activation(self, name: str, *shape: int, dtype: Any = np.float32) -> str:  # noqa: ANN401 - numpy takes many
        self._add(name, shape, dtype, 0)
        return name

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:  # noqa: ANN401 - numpy takes many
        array = np.asarray(values, dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.buffers.append(buffer)
        self._add(name, array.shape, dtype, len(self.buffers) - 1)
        return name

    def operator(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        options: str | None = None,
        **values: Any,  # noqa: ANN401 - fields of the schema's tables
    ) -> None:
        names = [item.name.decode() for item in self.tensors]
        operator = schema.OperatorT()
        operator.inputs = [names.index(name) if name else -1 for name in inputs]
        operator.outputs = [names.index(name) for name in outputs]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in values.items():
                assert hasattr(operator.builtinOptions, key), key
                setattr(operator.builtinOptions, key, value)
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, kind))
        self.operators.append(operator)

    def write(self, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        names = [item.name.decode() for item in self.tensors]
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = [names.index(name) for name in inputs]
        graph.outputs = [names.index(name) for name in outputs]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [self._map(names, name) for name in inputs]
        signature.outputs = [self._map(names, name) for name in outputs]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes, model.signatureDefs = self.codes, [signature]
        return write_model(model)

    def linear(self, source: str, weights: Any, bias: Any, output: str) -> str:  # noqa: ANN401 - arrays
        """FULLY_CONNECTED of a tensor float32[rows, inputs]."""
        rows = int(self.tensors[self._index(source)].shape[0])
        matrix = self.constant(f"{output}.weight", weights)
        offset = self.constant(f"{output}.bias", bias)
        self.activation(output, rows, len(np.asarray(bias)))
        self.operator(
            "FULLY_CONNECTED", [source, matrix, offset], [output], "FullyConnectedOptions"
        )
        return output

    def binary(self, kind: str, left: str, right: str, output: str) -> str:
        """ADD or MUL of tensors whose first has the output's shape."""
        shape = self.tensors[self._index(left)].shape
        self.activation(output, *shape)
        self.operator(kind, [left, right], [output], f"{kind.capitalize()}Options")
        return output

    def _index(self, name: str) -> int:
        return [item.name.decode() for item in self.tensors].index(name)

    def _code(self, builtin: int) -> int:
        known = [code.builtinCode for code in self.codes]
        if builtin not in known:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, 1
            code.deprecatedBuiltinCode = min(builtin, 127)  # schema.fbs, PLACEHOLDER_FOR_GREATER
            self.codes.append(code)
            known.append(builtin)
        return known.index(builtin)

    def _map(self, names: list[str], name: str) -> Any:  # noqa: ANN401 - the vendor has no types
        item = schema.TensorMapT()
        item.name, item.tensorIndex = name.encode(), names.index(name)
        return item

    def _add(self, name: str, shape: Sequence[int], dtype: Any, buffer: int) -> None:  # noqa: ANN401 - numpy takes many
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), buffer
        tensor.type = getattr(schema.TensorType, _TYPES[np.dtype(dtype)])
        self.tensors.append(tensor)


def ranges(**ends: tuple[float, float]) -> Ranges:
    """Ranges of tensors whose names are identifiers."""
    return Ranges(
        by_name={name: Range(low=low, high=high) for name, (low, high) in ends.items()},
        dead=(),
        masks=(),
    )


def run(content: bytes, *inputs: np.ndarray) -> np.ndarray:
    """The first output in real numbers, of inputs in real numbers; rounds half to even."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for details, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], _stored(values, details))
    interpreter.invoke()
    details = interpreter.get_output_details()[0]
    values = interpreter.get_tensor(details["index"])
    scale, zero_point = details["quantization"]
    real: np.ndarray = (values.astype(np.float32) - zero_point) * scale if scale else values.copy()
    return real


def _stored(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if scale:
        values = np.clip(np.round(values / scale) + zero_point, -128, 127)
    stored: np.ndarray = values.astype(details["dtype"])
    return stored


def kinds(content: bytes) -> list[str]:
    model = read_model(content)
    return [operator_name(model, operator) for _, operator in operators(model)]


def types(content: bytes) -> dict[str, str]:
    """Element type by tensor name."""
    return {tensor_name(item): type_name(item) for item in read_model(content).subgraphs[0].tensors}


def scales(content: bytes, name: str) -> tuple[list[float], list[int]]:
    """Scales and zero points of a tensor."""
    (tensor,) = (
        item for item in read_model(content).subgraphs[0].tensors if tensor_name(item) == name
    )
    return list(tensor.quantization.scale), list(tensor.quantization.zeroPoint)
