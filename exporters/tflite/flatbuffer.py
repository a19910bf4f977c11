"""Flatbuffer: a .tflite file as tables that can be changed, and back to bytes.

The tables are those of the TFLite schema (version 3), in the form that flatc generates for Python
and ai-edge-litert ships; their attributes keep the schema's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDENTIFIER: Final = b"TFL3"
_EXTERNAL: Final = 1
"""`Buffer.offset` above this: the bytes lie behind the flatbuffer (schema.fbs, table Buffer)."""

ModelT = Any
"""ai_edge_litert.schema_py_generated.ModelT: the vendor has no types."""
SubGraphT = Any
OperatorT = Any
TensorT = Any


def read_model(content: bytes) -> ModelT:
    """The file's tables, every buffer inside of them.

    ai-edge-quantizer writes larger buffers behind the flatbuffer, where packing the tables again
    would lose them ("Constant buffer 21 specified an out of range offset", measured).

    Raises:
        ExportFailed: These bytes are no TFLite file.
    """
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    if not flatbuffers.util.BufferHasIdentifier(content, 0, _IDENTIFIER):
        problem = Problem(
            where="tflite",
            what="the bytes are no TFLite file",
            expected="a flatbuffer with the identifier TFL3",
            found=repr(content[:8]),
            remedy="report this as a defect of edgeship",
        )
        raise ExportFailed(problem)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > _EXTERNAL:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def write_model(model: ModelT) -> bytes:
    """The tables as one flatbuffer; equal tables give equal bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operators(model: ModelT) -> Iterator[tuple[SubGraphT, OperatorT]]:
    """Every operator of every subgraph, with its subgraph, in execution order."""
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or ():
            yield subgraph, operator


def operator_name(model: ModelT, operator: OperatorT) -> str:
    """Its name in the schema, "CONV_2D"; a custom operator's own name."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return str(code.customCode.decode())
    return _names(schema.BuiltinOperator)[builtin]


def type_name(tensor: TensorT) -> str:
    """Name of its element type in the schema: "FLOAT32", "INT8"."""
    from ai_edge_litert import schema_py_generated as schema

    return _names(schema.TensorType)[tensor.type]


def tensor_name(tensor: TensorT) -> str:
    """Its name as text."""
    return "" if tensor.name is None else str(tensor.name.decode())


def is_constant(model: ModelT, tensor: TensorT) -> bool:
    """Whether the file holds the tensor's values: weights, shapes, paddings."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}
