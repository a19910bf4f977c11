"""Transposes: those between a channel-last file and the channel-first torch module, taken out.

A tensor that only TRANSPOSE, RESHAPE and the like lie before is a view of the one before them.
What reads it can often read that one instead: other axes, other columns of a weight.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from edgeship.exporters.tflite.columns import permute_columns
from edgeship.exporters.tflite.flatbuffer import operator_name
from edgeship.exporters.tflite.moves import drop_unread_moves, join_moves
from edgeship.exporters.tflite.reductions import reduce_source
from edgeship.exporters.tflite.sinking import sink_moves
from edgeship.exporters.tflite.views import view_of
from edgeship.exporters.tflite.wiring import drop_unused, producers_by_output

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, SubGraphT


def remove_transposes(tables: ModelT) -> int:
    """Take out every TRANSPOSE that nothing needs; how many went.

    - What reduces a view, or takes the index of a maximum, does so over other axes of its source.
    - FULLY_CONNECTED after flattening gets its weight's columns in the source's order.
    - TRANSPOSEs after one another become one, or none, or a RESHAPE.
    - Element-wise operators are computed before a TRANSPOSE where that lets it go.

    Sums run in another order, everything else is exact. Called on the float file: tensors that
    nothing uses any more are gone, and those that stay keep their names. Modifies `tables`, which
    need `versions.set_versions` afterwards; without a TRANSPOSE to take out, leaves them alone.
    """
    before, saved = len(_transposes(tables)), _save(tables)
    _simplify(tables)
    for index in _transposes(tables):
        producers = producers_by_output(tables)
        if index in producers:  # not gone with another one
            _try_sinking(tables, {view_of(tables, producers, index).source})
    producers = producers_by_output(tables)
    _try_sinking(
        tables, {view_of(tables, producers, index).source for index in _transposes(tables)}
    )
    gone = before - len(_transposes(tables))
    if gone:
        drop_unused(tables)
    else:
        _restore(tables, saved)
    return gone


def _simplify(tables: ModelT) -> None:
    """Apply the rules that never add a TRANSPOSE until none applies."""
    is_changed = True
    while is_changed:
        drop_unread_moves(tables)
        producers = producers_by_output(tables)
        is_changed = any(
            rule(tables, producers, operator)
            for operator in list(tables.subgraphs[0].operators)
            for rule in (join_moves, reduce_source, permute_columns)
        )


def _try_sinking(tables: ModelT, active: set[int]) -> None:
    """Compute what is element-wise before the TRANSPOSEs of these, if some of them go then."""
    before, saved, sources = len(_transposes(tables)), _save(tables), len(active)
    is_changed = True
    while is_changed:
        producers = producers_by_output(tables)
        is_changed = any(
            rule(tables, producers, operator, active)
            for operator in list(tables.subgraphs[0].operators)
            for rule in (sink_moves, reduce_source)
        )
    if len(active) > sources:
        _simplify(tables)
    if len(_transposes(tables)) >= before:
        _restore(tables, saved)


def _transposes(tables: ModelT) -> list[int]:
    """What each TRANSPOSE gives."""
    (graph,) = tables.subgraphs
    found = [item for item in graph.operators if operator_name(tables, item) == "TRANSPOSE"]
    return [int(item.outputs[0]) for item in found]


def _save(tables: ModelT) -> tuple[SubGraphT, int, int]:
    """What `_restore` needs: the rules here replace fields and add buffers, and change no value."""
    (graph,) = tables.subgraphs
    saved = copy.copy(graph)
    saved.operators = [copy.copy(item) for item in graph.operators]
    saved.tensors = [copy.copy(item) for item in graph.tensors]
    return saved, len(tables.buffers), len(tables.operatorCodes)


def _restore(tables: ModelT, saved: tuple[SubGraphT, int, int]) -> None:
    graph, buffers, codes = saved
    tables.subgraphs = [graph]
    del tables.buffers[buffers:], tables.operatorCodes[codes:]
