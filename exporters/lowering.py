"""Lowering to a Graph: the float file of every format that is made of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.proof import prove
from edgeship.exporters.protocol import Lowered

if TYPE_CHECKING:
    from pathlib import Path

    from edgeship.exporters.protocol import Source

RUNTIME: Final = "onnxruntime"
"""What a Graph is observed in."""
_GRAPH_NAME: Final = "graph.onnx"


def lowered_graph(source: Source, directory: Path) -> Lowered:
    """Write the canonical Graph into `directory` and prove it against the model.

    Raises:
        ExportFailed: It cannot be written, or computes something else.
    """
    import onnx

    from edgeship.exporters.activations import observed_tensors
    from edgeship.runtimes.protocol import load_runtime
    from edgeship.source.graph import graph_from_model

    graph = graph_from_model(source.model, directory / _GRAPH_NAME)
    prove(load_runtime(RUNTIME).open(graph.file), source, where="graph")
    return Lowered(
        file=graph.file,
        sha256=graph.sha256,
        contract=source.model.contract,
        runtime=RUNTIME,
        observed=observed_tensors(onnx.load(graph.file)),
        notes=source.model.notes,
    )
