"""Embeddings: a look-up in the form that integers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.tflite.edits import set_operator
from edgeship.exporters.tflite.flatbuffer import is_constant, operator_name, type_name

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT

_ROWS: Final = 0


def gather_embeddings(tables: ModelT) -> None:
    """Look up embeddings by GATHER, for a static int8 file; modifies `tables`.

    ai-edge-quantizer leaves the table of an EMBEDDING_LOOKUP in float in a static recipe, and
    quantizes that of a GATHER (0.10, default_policy.py). Both give the same rows.

    What is looked up has the table's own scale, so that rows which no sample used are not cut
    (SAME_AS_INPUT_SCALE there).
    """
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = tables.subgraphs
    for operator in graph.operators:
        if operator_name(tables, operator) != "EMBEDDING_LOOKUP":
            continue
        rows, table = operator.inputs
        tensor = graph.tensors[table]
        if not is_constant(tables, tensor) or type_name(tensor) != "FLOAT32":
            continue
        options = schema.GatherOptionsT()
        options.axis, options.batchDims = _ROWS, 0
        set_operator(tables, operator, "GATHER", (table, rows), ("GatherOptions", options))
