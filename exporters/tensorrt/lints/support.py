"""Support: opset, operators and types that a version of TensorRT takes, by its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tensorrt.lints.finding import Breach
from edgeship.exporters.tensorrt.lints.view import MARKS, View, attribute, input_of
from edgeship.targets.tensorrt_facts import TensorRtFacts
from edgeship.targets.tensorrt_operators import Restriction, operator_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

_DOMAINS: Final = ("", "ai.onnx")
_SHORT: Final = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT8E4M3FN": "FP8",
}
"""Names of types in docs/operators.md, where they are not those of ONNX."""
_DATA: Final = {"Where": 1, "OneHot": 2}
"""Position of the input that the types of a row speak of, where it is not the first."""
_MADE: Final = frozenset({"RandomNormal", "RandomUniform"})
"""Operators whose types are those of what they give."""
_UNTYPED: Final = frozenset({"If", "Loop", "Scan", "Constant", "ConstantOfShape", *MARKS})
"""Those whose row says nothing of a type, those that are folded before a layer is made of them,
and Q/DQ, which have rules of their own."""
_INT32_MAX: Final = 2**31 - 1
_SATURATED: Final = frozenset({"Slice"})
"""Read "as far as possible" out of numbers that are too large (ONNX): clamping changes nothing."""


def opset(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """The parser takes opsets up to its own."""
    version = _opset(view)
    if version > facts.opset_max:
        yield Breach(
            where="graph",
            what=f"opset {version} is above {facts.opset_max}",
            remedy=f"write the graph at opset {facts.opset}",
        )


def int8_absent(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Without INT8 units no engine is built of a graph with Q/DQ (NVIDIA/TensorRT#3157)."""
    node = next(view.of_type("QuantizeLinear", "DequantizeLinear"), None)
    if node is not None and not facts.has_int8:
        what = facts.int8_reason or "the GPU has no INT8"
        yield Breach(where=node, what=what, remedy="ship the FP16 graph alone")


def operators(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Operators are in the table of the version, and of ONNX."""
    table = operator_table(facts.operators)
    for node in view.all_nodes:
        name = node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
        if name not in table.types:
            yield Breach(
                where=node,
                what=f"TensorRT {facts.version} has no {name}",
                remedy="write it by operators that it has, or keep it out of the model",
            )


def operator_types(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """An operator takes the types of its row; INT64 is INT32 where TensorRT has none."""
    table = operator_table(facts.operators)
    for node in view.nodes:
        allowed = table.types.get(node.op_type, frozenset())
        tensor = _data_tensor(node)
        kind = view.kinds.get(tensor)
        if not allowed or kind in (None, "DOUBLE") or node.op_type in _UNTYPED:
            continue
        if kind == "INT64" and kind not in table.data_types:
            kind = "INT32"
        if _SHORT.get(kind, kind) not in allowed:
            yield Breach(
                where=node,
                what=f"{node.op_type} of {kind}, where TensorRT {facts.version} takes "
                + ", ".join(sorted(allowed)),
                remedy="cast its data, or leave the operator out",
            )


def data_types(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Tensors have types that TensorRT has, or that the parser narrows without loss."""
    known = operator_table(facts.operators).data_types | {"INT32", "INT64"}
    codes = {name for node in view.of_type(*MARKS) for name in (*node.input, *node.output)}
    for name, kind in view.kinds.items():
        if (kind == "DOUBLE" or kind not in known) and name not in codes:
            producer = view.producers.get(name)
            yield Breach(
                where=name if producer is None else producer,
                what=f"{name} is {kind}, which TensorRT {facts.version} computes nothing in",
                remedy="cast it to FP32 or INT32 when the model is exported",
            )


def int64_values(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Before TensorRT has INT64 its constants are clamped to INT32."""
    if "INT64" in operator_table(facts.operators).data_types:
        return
    for name, tensor in view.constants.items():
        values = view.values(name) if tensor.data_type == tensor.INT64 else None
        readers = {reader.op_type for reader, _ in view.readers.get(name, ())}
        if values is None or not values.size or readers <= _SATURATED:
            continue
        if values.max() > _INT32_MAX or values.min() < -_INT32_MAX - 1:
            producer = view.producers.get(name)
            yield Breach(
                where=name if producer is None else producer,
                what=f"{name} holds INT64 values that INT32 has not",
                remedy="make them smaller: this TensorRT clamps them",
            )


def int64_edges(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Before TensorRT has INT64 its inputs and outputs are INT32, with half of the bytes."""
    if "INT64" in operator_table(facts.operators).data_types:
        return
    for direction, name in _edges(view):
        if view.kinds.get(name) == "INT64":
            yield Breach(
                where=name,
                what=f"{direction} is INT64, which becomes INT32 in the engine",
                remedy="declare it INT32",
            )


def bool_edges(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """What goes in and out of an engine are numbers: BOOL there was not seen before 10."""
    if facts.release >= (10, 0):
        return
    for direction, name in _edges(view):
        if view.kinds.get(name) == "BOOL":
            what = f"{direction} is BOOL"
            yield Breach(where=name, what=what, remedy="declare it INT32 and cast it inside")


def restrictions(view: View, facts: TensorRtFacts) -> Iterator[Breach]:
    """Inputs, outputs and attributes of an operator are as its row asks."""
    for node in view.nodes:
        for restriction in operator_table(facts.operators).restrictions:
            if node.op_type in restriction.operators:
                yield from _broken(view, node, restriction)


def _broken(view: View, node: onnx.NodeProto, asked: Restriction) -> Iterator[Breach]:
    for name in asked.constant:
        tensor = input_of(node, _position(node.op_type, name, _opset(view)))
        if tensor and view.weight_of(tensor) is None:
            what, remedy = f"{name} is computed", "store it as an initializer"
            yield Breach(where=node, what=what, remedy=remedy)
    if asked.outputs is not None and any(node.output[asked.outputs :]):
        what = f"only {asked.outputs} of its outputs can be used"
        yield Breach(where=node, what=what, remedy="leave out what reads the others")
    value = None if asked.attribute is None else attribute(node, asked.attribute)
    if value is None:
        return
    elements = value if isinstance(value, list | tuple) else [value]
    allowed = asked.one_of or (asked.equal,)
    is_allowed = all(element in allowed for element in elements)
    if not is_allowed:
        expected = ", ".join(asked.one_of) or str(asked.equal)
        what = f"its {asked.attribute} is {value}, not {expected}"
        yield Breach(where=node, what=what, remedy=f"use {expected}")


def _position(operator: str, name: str, opset_: int) -> int:
    """Of the input `name`; beyond all inputs where this opset has it not."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, min(opset_, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return _INT32_MAX
    names = [parameter.name for parameter in schema.inputs]
    return names.index(name) if name in names else _INT32_MAX


def _opset(view: View) -> int:
    versions = [item.version for item in view.proto.opset_import if item.domain in _DOMAINS]
    return max(versions, default=1)


def _edges(view: View) -> Iterator[tuple[str, str]]:
    graph = view.proto.graph
    for value in graph.input:
        if value.name not in view.constants:
            yield "the input", value.name
    for value in graph.output:
        yield "the output", value.name


def _data_tensor(node: onnx.NodeProto) -> str:
    if node.op_type in _MADE:
        return node.output[0] if node.output else ""
    return input_of(node, _DATA.get(node.op_type, 0))
