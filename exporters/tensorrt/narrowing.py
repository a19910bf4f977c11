"""Narrowing: INT64 and BOOL where a TensorRT has neither, with the same values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import onnx
from onnx import TensorProto

from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.structure import MOVERS
from edgeship.exporters.tensorrt.tensor_types import TensorType, tensor_types
from edgeship.targets.tensorrt_operators import operator_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgeship.targets.tensorrt_facts import TensorRtFacts

_WIDE: Final = frozenset({TensorProto.INT64, TensorProto.BOOL})
_WIDE_NAMES: Final = frozenset({"int64", "bool"})
_NARROW: Final = TensorProto.INT32
_BOOL: Final = "BOOL"


def is_narrowed(facts: TensorRtFacts) -> bool:
    """Whether inputs and outputs of INT64 and BOOL become INT32: before TensorRT 10."""
    return "INT64" not in operator_table(facts.operators).data_types


def narrow_contract(contract: Contract) -> Contract:
    """The contract of what `with_narrow_types` gives."""

    def narrow(spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype="int32") if spec.dtype in _WIDE_NAMES else spec

    return Contract(
        inputs=tuple(narrow(spec) for spec in contract.inputs),
        outputs=tuple(narrow(spec) for spec in contract.outputs),
    )


def with_narrow_types(proto: onnx.ModelProto, facts: TensorRtFacts) -> onnx.ModelProto:
    """Let inputs and outputs be INT32, and cast bools that an operator cannot move.

    Inside INT64 stays, which the parser itself turns into INT32. Nodes keep their names.

    Args:
        proto: Not modified.
        facts: Of a TensorRT without INT64.
    """
    types = tensor_types(proto)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    nodes = [made for node in proto.graph.node for made in _without_bool_moves(node, types, facts)]
    edges = {value.name for value in graph.input if _narrowed(value)}
    before = [_cast(name, _inner(name), types[name].element) for name in sorted(edges)]
    results = {value.name for value in graph.output if _narrowed(value)}
    after = [_cast(_inner(name), name, _NARROW) for name in sorted(results)]
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in edges | results:
                    names[index] = _inner(name)
    del graph.node[:]
    graph.node.extend([*before, *nodes, *after])
    return result


def _narrowed(value: onnx.ValueInfoProto) -> bool:
    """Make an input or output INT32; whether it was wider."""
    kind = value.type.tensor_type
    if kind.elem_type not in _WIDE:
        return False
    kind.elem_type = _NARROW
    return True


def _without_bool_moves(
    node: onnx.NodeProto, types: Mapping[str, TensorType], facts: TensorRtFacts
) -> Iterator[onnx.NodeProto]:
    """The node; around it casts to INT32 and back where its operator does not take bools."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    allowed = operator_table(facts.operators).types.get(node.op_type, frozenset())
    if node.op_type not in MOVERS or not allowed or _BOOL in allowed:
        yield copy
        return
    after = []
    for index, name in enumerate(node.input):
        if name in types and types[name].element == TensorProto.BOOL:
            copy.input[index] = f"{node.name}_{name}_int32"
            yield _cast(name, copy.input[index], _NARROW, node)
    for index, name in enumerate(node.output):
        if types[name].element == TensorProto.BOOL:
            copy.output[index] = f"{name}_int32"
            after.append(_cast(copy.output[index], name, TensorProto.BOOL, node))
    yield copy
    yield from after


def _inner(name: str) -> str:
    """Name inside of the graph of what is INT32 at its edge."""
    return f"{name}_wide"


def _cast(
    source: str, target: str, kind: int, node: onnx.NodeProto | None = None
) -> onnx.NodeProto:
    made = onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)
    if node is not None:
        made.metadata_props.extend(node.metadata_props)
    return made
