"""Edits: constants, activations and operators put into a file's tables.

An operator code that is new here is of version 1, and one that is no longer used stays: call
`versions.set_versions` afterwards. tflite_runtime 2.14 refuses a file for a code that it does not
know even where no operator uses it (measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, TensorT

_LAST_OLD_CODE: Final = 127
"""schema.fbs, OperatorCode: later operators have this in the field that old readers look at."""
_DTYPES: Final = {
    "FLOAT32": "<f4",
    "INT8": "i1",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}


def constant_values(tables: ModelT, tensor: TensorT) -> np.ndarray:
    """The values of a constant in its shape; a copy.

    Raises:
        KeyError: Its element type is none of those that shapes, masks and weights have.
    """
    import numpy as np

    from edgeship.exporters.tflite.flatbuffer import type_name

    data = np.asarray(tables.buffers[tensor.buffer].data, np.uint8).tobytes()
    shape = () if tensor.shape is None else tuple(tensor.shape)
    return np.frombuffer(data, _DTYPES[type_name(tensor)]).reshape(shape).copy()


def set_constant(tables: ModelT, tensor: TensorT, values: np.ndarray) -> None:
    """Give one tensor these values, leaving others that share its buffer alone."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.buffer = len(tables.buffers)
    tables.buffers.append(buffer)


def add_shape(tables: ModelT, shape: Sequence[int], name: str) -> int:
    """Index of a new int32 constant: the second input of a RESHAPE."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    index = add_tensor(tables, (len(shape),), schema.TensorType.INT32, name)
    set_constant(tables, tables.subgraphs[0].tensors[index], np.array(shape, np.int32))
    return index


def add_tensor(tables: ModelT, shape: Sequence[int], element_type: int, name: str) -> int:
    """Index of a new tensor in the first graph; a name that is taken becomes `name;1`."""
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = tables.subgraphs
    taken = {tensor.name for tensor in graph.tensors}
    number, unique = 0, name
    while unique.encode() in taken:
        number += 1
        unique = f"{name};{number}"
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = unique.encode(), element_type, 0
    tensor.shape = [int(size) for size in shape]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def set_operator(
    tables: ModelT,
    operator: OperatorT,
    name: str,
    inputs: Sequence[int],
    options: tuple[str, object] | None = None,
) -> None:
    """Make `operator` another one that gives the same outputs.

    Args:
        tables: The file's.
        operator: Changed.
        name: In the schema: "RESHAPE".
        inputs: Indices of tensors.
        options: Name of the schema's table of them, and the table.
    """
    from ai_edge_litert import schema_py_generated as schema

    operator.opcodeIndex = _code_index(tables, getattr(schema.BuiltinOperator, name))
    operator.inputs = list(inputs)
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    if options is not None:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
        operator.builtinOptions = options[1]


def new_operator(
    tables: ModelT,
    name: str,
    inputs: Sequence[int],
    output: int,
    options: tuple[str, object] | None = None,
) -> OperatorT:
    """An operator that gives one tensor; the caller puts it into a graph."""
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.outputs = [output]
    set_operator(tables, operator, name, inputs, options)
    return operator


def _code_index(tables: ModelT, builtin: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(tables.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, _LAST_OLD_CODE)
    code.version = 1
    tables.operatorCodes.append(code)
    return len(tables.operatorCodes) - 1
