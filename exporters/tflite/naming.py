"""Naming: every tensor of a file by the torch module that it comes from.

image                     an input or output: as in the contract
layer1.0.conv1/conv_2d    an activation: the module, the operator that gives it
layer1.0.conv1/weight     a constant: the module of the first operator that reads it
/add;1                    the second one of its name; this one is of the outermost module
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from edgeship.exporters.tflite.flatbuffer import operator_name, operators, tensor_name
from edgeship.exporters.tflite.origins import Origin, origins_from_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeship.contract import Contract, TensorSpec
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT

_OUTPUT_MODULES: Final = b"edgeship.output_modules"
"""Metadata entry: JSON, name of an output -> its module, for which the name has no room."""
_FAMILIES: Final = {
    "CONV_2D": ("convolution",),
    "DEPTHWISE_CONV_2D": ("convolution",),
    "TRANSPOSE_CONV": ("convolution",),
    "CONV_3D": ("convolution",),
    "FULLY_CONNECTED": ("mm", "addmm", "bmm", "convolution"),
    "BATCH_MATMUL": ("bmm", "mm", "addmm"),
    "ADD": ("add", "sub"),
    "SUB": ("sub", "rsub", "add"),
    "MUL": ("mul", "div"),
}
"""Operator of the file -> torch operators that it may stand for; others are fused into it. What is
not here stands for the torch operator of its own name, where there is one."""
_ACTIVATIONS: Final = frozenset({"relu", "hardtanh", "clamp", "clamp_min", "clamp_max"})
"""Torch operators that become a field of the operator before them."""
_ROLES: Final = {
    "CONV_2D": {1: "weight", 2: "bias"},
    "DEPTHWISE_CONV_2D": {1: "weight", 2: "bias"},
    "CONV_3D": {1: "weight", 2: "bias"},
    "TRANSPOSE_CONV": {1: "weight", 3: "bias"},
    "FULLY_CONNECTED": {1: "weight", 2: "bias"},
    "BATCH_MATMUL": {0: "weight", 1: "weight"},
    "EMBEDDING_LOOKUP": {1: "weight"},
}
"""What an operator's inputs are, by position, where they are constants (TFLite's kernels)."""


def with_names(tables: ModelT, contract: Contract) -> ModelT:
    """The tables of `convert`, changed: tensors and signature have their final names."""
    (graph,) = tables.subgraphs
    modules = _modules_from_origins(tables)
    names: dict[int, str] = {}
    counts: dict[str, int] = defaultdict(int)

    def name(index: int, wanted: str) -> None:
        if index < 0 or index in names:  # -1 is an optional input that is left out
            return
        count = counts[wanted]
        counts[wanted] += 1
        names[index] = f"{wanted};{count}" if count else wanted

    (signature,) = tables.signatureDefs
    for specs, items in (
        (contract.inputs, signature.inputs),
        (contract.outputs, signature.outputs),
    ):
        _name_signature(specs, items)
        for item in items:
            name(item.tensorIndex, item.name.decode())
    for operator, module in zip(graph.operators, modules, strict=True):
        for index in operator.outputs:
            name(index, f"{module}/{operator_name(tables, operator).lower()}")
    for operator, module in zip(graph.operators, modules, strict=True):
        roles = _ROLES.get(operator_name(tables, operator), {})
        for position, index in enumerate(operator.inputs):
            name(index, f"{module}/{roles.get(position, 'constant')}")
    for index, tensor in enumerate(graph.tensors):
        name(index, "/unused")
        tensor.name = names[index].encode()
    _keep_output_modules(tables, modules)
    return tables


def module_of(name: str) -> str:
    """Dotted path of the module in a tensor's name; "" for the outermost, inputs and outputs."""
    return name.rpartition("/")[0]


def modules_of(tables: ModelT) -> dict[str, str]:
    """Module by name of every tensor that an operator gives, outputs of the file among them."""
    stored = {}
    for entry in tables.metadata or ():
        if entry.name == _OUTPUT_MODULES:
            stored = json.loads(bytes(tables.buffers[entry.buffer].data))
    names = [
        tensor_name(graph.tensors[index])
        for graph, operator in operators(tables)
        for index in operator.outputs
    ]
    return {name: str(stored.get(name, module_of(name))) for name in names}


def _name_signature(specs: Sequence[TensorSpec], items: list[Any]) -> None:
    """Give its items, which the converter calls `args_<n>` and `output_<n>`, names and order."""
    items.sort(key=lambda item: int(item.name.rpartition(b"_")[2]))
    for spec, item in zip(specs, items, strict=True):
        item.name = spec.name.encode()


def _modules_from_origins(tables: ModelT) -> list[str]:
    """Module of each operator; that of a neighbour where the converter made it from nothing."""
    (graph,) = tables.subgraphs
    found = [_module(tables, graph, operator) for operator in graph.operators]
    producer = {
        index: position
        for position, operator in enumerate(graph.operators)
        for index in operator.outputs
    }
    readers = defaultdict(list)
    for position, operator in enumerate(graph.operators):
        for index in operator.inputs:
            readers[index].append(position)
    for position in reversed(range(len(found))):
        if found[position] is None:
            (index, *_) = graph.operators[position].outputs
            of_readers = {found[reader] for reader in readers[index]}
            found[position] = of_readers.pop() if len(of_readers) == 1 else None
    for position, operator in enumerate(graph.operators):
        if found[position] is None:
            before = [found[producer[index]] for index in operator.inputs if index in producer]
            found[position] = next((module for module in before if module is not None), None)
    return [module or "" for module in found]


def _module(tables: ModelT, graph: SubGraphT, operator: OperatorT) -> str | None:
    """That of the torch operator that it stands for, else of the last one that went into it."""
    own = _origins(graph, operator.outputs)
    of_inputs = _origins(graph, [index for index in operator.inputs if index >= 0])
    kind = operator_name(tables, operator)
    family = _FAMILIES.get(kind, (kind.lower(),))
    candidates = [
        *(origin for origin in own if origin.operator in family),
        *(origin for origin in of_inputs if kind in _ROLES and origin.operator in family),
        *(origin for origin in own if origin.operator not in _ACTIVATIONS),
        *own,
    ]
    return candidates[0].module if candidates else None


def _origins(graph: SubGraphT, indices: Sequence[int]) -> list[Origin]:
    return [
        origin
        for index in indices
        for origin in origins_from_text(tensor_name(graph.tensors[index]))
    ]


def _keep_output_modules(tables: ModelT, modules: Sequence[str]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = tables.subgraphs
    outputs = {int(index) for index in graph.outputs}
    stored = {
        tensor_name(graph.tensors[index]): module
        for operator, module in zip(graph.operators, modules, strict=True)
        for index in operator.outputs
        if index in outputs
    }
    buffer = schema.BufferT()
    buffer.data = list(json.dumps(stored, sort_keys=True).encode())
    entry = schema.MetadataT()
    entry.name, entry.buffer = _OUTPUT_MODULES, len(tables.buffers)
    tables.buffers.append(buffer)
    tables.metadata = [*(tables.metadata or ()), entry]
