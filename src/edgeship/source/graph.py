"""Graph: the canonical float ONNX of a model, opset 18, the same bytes from the same model."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.source.model import example_inputs
from edgeship.source.onnx_file import read_onnx
from edgeship.source.onnx_graph import canonical_proto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from edgeship.source.model import Model
from edgeship.source.quiet import quiet_torch

OPSET: Final = 18
"""DESIGN: the opset of every Graph; torch.onnx writes it natively (asking for 17 yields 18)."""
_KEPT_METADATA: Final = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy")
_WEIGHT: Final = ".weight"
_SERIALISED_LIMIT: Final = 2**31 - 1
"""protobuf's limit on one message."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A canonical float ONNX file and the SHA-256 of its bytes."""

    file: Path
    sha256: str


def graph_from_model(model: Model, file: Path) -> Graph:
    """Export `model` to `file`: BatchNorm folded, names frozen, metadata free of local paths.

    A model that was given as an `.onnx` file is brought into the same form.

    Raises:
        ExportFailed: torch.export or torch.onnx refuses the module, or the result is not canonical.
    """
    import onnx

    if model.original is None:
        proto = _export(model)
    else:
        proto = canonical_proto(read_onnx(model.original), model.contract.inputs, OPSET)
    _canonicalise(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _failed(error, what="the exported graph is not valid ONNX") from error
    _require_canonical(proto)
    content = proto.SerializeToString(deterministic=True)
    file.write_bytes(content)
    return Graph(file=file, sha256=hashlib.sha256(content).hexdigest())


def module_of_node(node: onnx.NodeProto) -> str:
    """Dotted name of the torch module that a node of a Graph comes from; "" for the root.

    That of its weight, where it has one (a Conv with a folded BatchNorm carries the scope of the
    BatchNorm), else of its scope: name_scopes is a list literal, the outermost first and the
    node's own name last.
    """
    weights = [name for name in node.input if name.endswith(_WEIGHT)]
    if weights:
        return str(weights[0]).removesuffix(_WEIGHT)
    scopes = [item.value for item in node.metadata_props if item.key == _KEPT_METADATA[0]]
    if not scopes:
        return ""
    names = ast.literal_eval(scopes[0])
    return str(names[-2]) if len(names) > 1 else ""


def _export(model: Model) -> onnx.ModelProto:
    import torch

    inputs = example_inputs(model.contract.inputs)
    with quiet_torch():
        try:
            program = torch.onnx.export(
                model.module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                optimize=True,
                input_names=[spec.name for spec in model.contract.inputs],
                output_names=[spec.name for spec in model.contract.outputs],
                verbose=False,
            )
        except Exception as error:  # torch wraps the user's and its own failures in many types
            raise _failed(error, what="torch.onnx cannot export the module") from error
    assert program is not None  # dynamo=True without a file always returns the program
    proto: onnx.ModelProto = program.model_proto
    if proto.ByteSize() > _SERIALISED_LIMIT:
        problem = Problem(
            where="graph",
            what="the graph is too large for one file",
            expected="at most 2 GiB",
            found=f"{proto.ByteSize() / 2**30:.1f} GiB",
            remedy="export a smaller model: external data is not written in this version",
        )
        raise ExportFailed(problem)
    return proto


def _canonicalise(proto: onnx.ModelProto) -> None:
    """Keep of the metadata only where a node comes from; drop texts that hold local paths."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    proto.graph.name = "edgeship"
    for graph in _graphs(proto.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            _reduce_metadata(node)
        for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            item.doc_string = ""
            del item.metadata_props[:]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those in its nodes' attributes: the branches of an If, the body of a Loop."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _reduce_metadata(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    kept = sorted(
        (item.key, item.value) for item in node.metadata_props if item.key in _KEPT_METADATA
    )
    del node.metadata_props[:]
    for key, value in kept:
        node.metadata_props.add(key=key, value=value)


def _require_canonical(proto: onnx.ModelProto) -> None:
    """One domain, its opset as asked for, BatchNorm gone, static shapes.

    The exporter only logs where the opset is another, and takes a shape that follows from values.
    """
    opsets = {item.domain: item.version for item in proto.opset_import}
    domains = {node.domain for node in proto.graph.node} - {"", "ai.onnx"}
    if opsets.get("") != OPSET or domains:
        problem = Problem(
            where="graph",
            what="the exporter wrote other operators than were asked for",
            expected=f"opset {OPSET} of ai.onnx alone",
            found=f"{opsets}, domains {sorted(domains)}",
            remedy="replace the operators that standard ONNX does not have",
        )
        raise ExportFailed(problem)
    unfolded = [node.name for node in proto.graph.node if node.op_type == "BatchNormalization"]
    if unfolded:
        problem = Problem(
            where=f"graph: {', '.join(unfolded[:5])}",
            what="a BatchNorm was not folded into the layer before it",
            remedy="put BatchNorm directly after a Conv or Linear layer",
        )
        raise ExportFailed(problem)
    dynamic = [
        value.name
        for value in proto.graph.output
        if not all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    ]
    if dynamic:
        problem = Problem(
            where=f"graph: {', '.join(dynamic)}",
            what="the shape of an output depends on the values of the input",
            expected="static shapes",
            remedy="pad the output to its largest size, or leave that step to the application",
        )
        raise ExportFailed(problem)


def _failed(error: Exception, *, what: str) -> ExportFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    root = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    found = root or next(iter(lines), type(error).__name__)
    problem = Problem(
        where="graph",
        what=what,
        found=f"{type(cause).__name__}: {found}"[:400] + _user_code(str(cause)),
        remedy="change the module so that torch.export can trace it: no data-dependent branches",
    )
    return ExportFailed(problem)


def _user_code(message: str) -> str:
    """The line of the module that torch.export blames, where it says so."""
    _, _, tail = message.partition("The following call raised this error:")
    lines = [line.strip() for line in tail.splitlines() if line.strip()][:2]
    return f" at {' '.join(lines)}" if len(lines) == 2 else ""
