"""ONNX graph: a given ONNX model in the canonical form: static, folded, opset 18, names frozen.

Measured with onnx 1.23 and onnxscript 0.7 on a ResNet at opsets 11 to 19: `onnx.version_converter`
raises any opset to 18; onnxscript's own converter begins at 18. Lowering, the first has no adapter
for half of the operators, of which few changed but in the types that they take. So a file of a
higher opset is declared 18 after folding, the checker refuses operators that 18 has not, and the
exporter's proof compares what is left with the original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edgeship.contract import TensorSpec
from edgeship.errors import ExportFailed, Problem
from edgeship.source.onnx_file import graph_inputs

if TYPE_CHECKING:
    import onnx
    import onnx_ir

_IR_VERSION: Final = 8
"""That of ONNX 1.13, the release of opset 18 (onnx docs/Versioning.md)."""
_ROUNDS: Final = 2
"""The second folds what the converter has written; a third changes nothing (measured)."""
_FOLDED_ELEMENTS: Final = 1 << 18
"""onnxscript's limit on what folding may make; it does not fold ConstantOfShape unasked."""
_GROWING: Final = frozenset(
    {"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
_CHANGED: Final = frozenset({"GroupNormalization"})
"""Operators with the same form and another meaning after opset 18 (onnx docs/Changelog.md)."""
_SCOPES: Final = "pkg.torch.onnx.name_scopes"


def canonical_proto(
    original: onnx.ModelProto, inputs: Sequence[TensorSpec], opset: int
) -> onnx.ModelProto:
    """The model with the shapes of `inputs`, at that opset, without what can be computed now.

    Constants and shapes are folded, BatchNorm goes into the layer before it, local functions are
    inlined. Inputs, outputs and weights keep their names; every node has a name of its own, and the
    module that its name in the file tells. `original` is not modified.

    Raises:
        ExportFailed: It does not fit the shapes, or uses operators that the opset has not.
    """
    import onnx

    proto = onnx.ModelProto.FromString(original.SerializeToString())
    try:
        _set_shapes(proto, inputs)
        scopes = {node.output[0]: node.name for node in proto.graph.node if node.output}
        for _ in range(_ROUNDS):
            proto = _folded(proto)
            proto = _at_opset(proto, opset)
        proto = _inferred(proto)
    except ExportFailed:
        raise
    except Exception as error:  # the vendors raise many types, from RuntimeError to KeyError
        raise _failed(error) from error
    proto.ir_version = _IR_VERSION
    proto.producer_name, proto.producer_version = "", ""
    _freeze_names(proto, scopes)
    return proto


def scopes_of(name: str) -> list[str]:
    """Modules around a node, by its name in the file, the outermost first: `/layer1/layer1.0/Conv`.

    As torch.onnx without dynamo names nodes: a part repeats the container that it is in. The last
    part is the operator's.
    """
    scopes = [""]
    for part in name.strip("/").split("/")[:-1]:
        before = scopes[-1]
        tails = [before, *(before[at + 1 :] for at, one in enumerate(before) if one == ".")]
        repeated = next((tail for tail in tails if tail and part.startswith(f"{tail}.")), None)
        if repeated is not None:
            scopes.append(before.removesuffix(repeated) + part)
        else:
            scopes.append(f"{before}.{part}" if before else part)
    return scopes


def _set_shapes(proto: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> None:
    """The project's shapes for the inputs; of other tensors the file's may be symbolic: they go."""
    values = {value.name: value for value in graph_inputs(proto)}
    for spec in inputs:
        shape = values[spec.name].type.tensor_type.shape
        del shape.dim[:]
        for size in spec.shape:
            shape.dim.add(dim_value=size)
    ordered = [values[spec.name] for spec in inputs]
    weights = [value for value in proto.graph.input if value.name not in values]
    kept = [type(value).FromString(value.SerializeToString()) for value in (*ordered, *weights)]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx_ir
    from onnx_ir.passes.common import (
        LiftConstantsToInitializersPass,
        RemoveInitializersFromInputsPass,
    )
    from onnxscript import optimizer
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import _fuse_batchnorm

    model = onnx_ir.serde.deserialize_model(_inferred(proto))
    RemoveInitializersFromInputsPass()(model)
    optimizer.optimize_ir(model, should_fold=_is_small)
    rewrite(model, _fuse_batchnorm.rules)
    optimizer.optimize_ir(model, should_fold=_is_small)
    LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    return onnx_ir.serde.serialize_model(model)


def _is_small(node: onnx_ir.Node) -> bool | None:
    """Whether to fold an operator whose result may be huge where its inputs are small.

    None leaves it to onnxscript, whose limit on results applies after they are made.
    """
    if node.op_type not in _GROWING:
        return None
    shape = node.outputs[0].shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    is_known = shape is not None and len(sizes) == len(shape)
    if not is_known or math.prod(sizes) > _FOLDED_ELEMENTS:
        return False
    return True if node.op_type == "ConstantOfShape" else None


def _at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    import onnx

    found = next((item for item in proto.opset_import if item.domain in ("", "ai.onnx")), None)
    if found is None or found.version == opset:
        return proto
    if found.version < opset:
        return onnx.version_converter.convert_version(proto, opset)
    used = {node.op_type for node in proto.graph.node if node.domain in ("", "ai.onnx")}
    absent = {kind for kind in used if not onnx.defs.has(kind, opset)}
    if absent or used & _CHANGED:
        problem = Problem(
            where="graph",
            what=f"operators of the model are not those of opset {opset}",
            expected=f"opset {opset}, which the runtimes of every board have",
            found=f"opset {found.version} with {', '.join(sorted(absent | used & _CHANGED))}",
            remedy=f"export the model with opset_version={opset}",
        )
        raise ExportFailed(problem)
    found.version = opset
    return proto


def _freeze_names(proto: onnx.ModelProto, scopes: dict[str, str]) -> None:
    """Give each node a name of its own, and the scopes that its name in the file tells."""
    seen: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        path = scopes.get(node.output[0] if node.output else "", node.name)
        if not node.name or node.name in seen:
            node.name = f"node_{node.op_type}_{index}"
        while node.name in seen:
            node.name += "_"
        seen.add(node.name)
        if not any(item.key == _SCOPES for item in node.metadata_props):
            value = repr([*scopes_of(path), node.name])
            node.metadata_props.add(key=_SCOPES, value=value)


def _failed(error: Exception) -> ExportFailed:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    problem = Problem(
        where="graph",
        what="the model cannot be brought into its canonical form",
        found=f"{type(error).__name__}: {line}"[:400],
        remedy="correct model.inputs, or export the model with opset_version=18",
    )
    return ExportFailed(problem)
