"""Versions: those that a file's operators need, written into it.

ai-edge-quantizer leaves the float file's versions in place (an int8 CONV_2D stays version 1,
measured), and a runtime that is too old for the file then computes something instead of refusing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    TensorT,
    operator_name,
    operators,
)
from edgeship.exporters.tflite.version_rules import RULES, Use
from edgeship.exporters.tflite.version_table import first_tensorflow, release_key

_ENTRY: Final = b"min_runtime_version"
_ENTRY_BYTES: Final = 16
"""Name and size of the metadata buffer (tensorflow/compiler/mlir/lite/flatbuffer_export.cc)."""
_NEWEST: Final = "2.21.0"
"""Stands for versions in no table: the TensorFlow whose rules these are."""


def needed_version(model: ModelT, subgraph: SubGraphT, operator: OperatorT) -> int:
    """The lowest version of the operator that computes what this use of it says.

    The version that is written stands where it is higher, or where no rule is known.
    """
    written = int(model.operatorCodes[operator.opcodeIndex].version)
    use = Use(
        inputs=_tensors(subgraph, operator.inputs),
        outputs=_tensors(subgraph, operator.outputs),
        options=operator.builtinOptions,
    )
    rules = RULES.get(operator_name(model, operator), ())
    return max([written, 1, *(version for version, holds in rules if holds(use))])


def set_versions(model: ModelT) -> tuple[str, ...]:
    """Give each operator the version that it needs; modifies `model`.

    Two uses of an operator that need different versions get operator codes of their own; codes
    that nothing uses go.

    Returns:
        Names of the operators that no rule is known for, whose version is left.
    """
    uses = [
        (operator, needed_version(model, subgraph, operator))
        for subgraph, operator in operators(model)
    ]
    names = {operator_name(model, operator) for operator, _ in uses}
    codes: dict[tuple[object, ...], Any] = {}
    for operator, version in uses:
        code = copy.copy(model.operatorCodes[operator.opcodeIndex])
        code.version = version
        key = (code.builtinCode, code.deprecatedBuiltinCode, code.customCode, version)
        codes.setdefault(key, code)
        operator.opcodeIndex = list(codes).index(key)
    model.operatorCodes = list(codes.values())
    return tuple(sorted(names - RULES.keys()))


def minimum_runtime(model: ModelT) -> str:
    """The first release of TensorFlow Lite that has every operator at its version, "2.9.0"."""
    releases = {
        first_tensorflow(operator_name(model, operator), _version(model, operator)) or _NEWEST
        for _, operator in operators(model)
    }
    return max(releases, key=release_key, default="1.5.0")


def set_minimum_runtime(model: ModelT) -> str:
    """Write `minimum_runtime` into the file's metadata, where converters do; modifies `model`."""
    from ai_edge_litert import schema_py_generated as schema

    release = minimum_runtime(model)
    buffer = schema.BufferT()
    buffer.data = list(release.encode().ljust(_ENTRY_BYTES, b"\0"))
    entry = schema.MetadataT()
    entry.name, entry.buffer = _ENTRY, len(model.buffers)
    for present in model.metadata or ():
        if present.name == _ENTRY:
            model.buffers[present.buffer] = buffer
            return release
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    return release


def _tensors(subgraph: SubGraphT, indices: Iterable[int] | None) -> tuple[TensorT | None, ...]:
    present = () if indices is None else indices
    return tuple(subgraph.tensors[index] if index >= 0 else None for index in present)


def _version(model: ModelT, operator: OperatorT) -> int:
    return int(model.operatorCodes[operator.opcodeIndex].version)
