"""Kit file: `kit.json`, what the program on the board reads of a kit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import onnx

from edgeship.exporters.tensorrt.kit_graphs import FP16, INT8
from edgeship.exporters.tensorrt.tensor_types import tensor_types

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeship.contract import Contract
    from edgeship.exporters.tensorrt.kit_graphs import KitGraph, KitGraphs
    from edgeship.exporters.tensorrt.tensor_types import TensorType
    from edgeship.targets import Target
    from edgeship.targets.tensorrt_facts import TensorRtFacts

KIT_NAME: Final = "kit.json"
SCHEMA: Final = 1
_WORKSPACE_SHARE: Final = 0.25
"""Of the free memory: builds on boards with 2 to 8 GB are killed otherwise (NVIDIA/TensorRT issue
1404, jkjung-avt/tensorrt_demos issue 344)."""


def graph_file(graph: KitGraph) -> str:
    """Name of a graph's file."""
    return f"{graph.name}.onnx"


def write_kit_file(
    made: KitGraphs,
    contract: Contract,
    target: Target,
    facts: TensorRtFacts,
    directory: Path,
) -> None:
    """Write `kit.json`; deterministic.

    Args:
        made: The kit's graphs.
        contract: Of them all.
        target: Whose GPU engines are for.
        facts: Of its TensorRT.
        directory: Of the kit.
    """
    assert target.gpu is not None  # without one there are no facts
    value = {
        "schema": SCHEMA,
        "tensorrt": {
            "version": facts.version,
            "accepts": ".".join(map(str, facts.release)),
            "sm": target.gpu.sm,
        },
        "graphs": [_graph_entry(graph, facts) for graph in made.graphs],
        "opset": facts.opset,
        **contract.to_json(),
        "workspace_share": _WORKSPACE_SHARE,
    }
    text = json.dumps(value, indent=1, allow_nan=False)
    (directory / KIT_NAME).write_text(f"{text}\n", encoding="utf-8")


def _graph_entry(graph: KitGraph, facts: TensorRtFacts) -> dict[str, object]:
    """`float32_nodes` are what a builder with weak types must keep in FP32: outputs by node."""
    is_weak = not facts.is_strongly_typed
    return {
        "name": graph.name,
        "file": graph_file(graph),
        "precision": graph.name,
        "flags": {
            FP16: is_weak,
            INT8: is_weak and graph.name == INT8,
            "strongly_typed": facts.is_strongly_typed,
        },
        "float32_nodes": _float32_outputs(graph),
    }


def _float32_outputs(graph: KitGraph) -> dict[str, list[str | None]]:
    """Outputs of each such node, None for one that is no float32: it keeps its type."""
    if not graph.float32_nodes:
        return {}
    types = tensor_types(graph.proto)
    outputs = {node.name: node.output for node in graph.proto.graph.node}
    return {
        name: [_if_float32(output, types) for output in outputs[name]]
        for name in graph.float32_nodes
    }


def _if_float32(output: str, types: Mapping[str, TensorType]) -> str | None:
    is_float32 = output in types and types[output].element == onnx.TensorProto.FLOAT
    return output if is_float32 else None
