"""Delegation: which operators of a .tflite file LiteRT's default delegate takes on this host.

That delegate is XNNPACK. What it does not take runs in the runtime's own kernels, some of which
are plain loops for int8, and every such operator cuts the graph: an integer file may then be
slower than the float file that it came from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeship.runtimes.litert import LiteRtRuntime, refused, without_banner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """How XNNPACK shares the main subgraph of a file with the runtime's own kernels.

    Attributes:
        partitions: Pieces that XNNPACK runs, 1 where it takes the whole graph.
        outside: How many operators run outside of it, by their name in the TFLite schema, in the
            order in which the first of each runs.
        places: Which ones these are in the main subgraph's list of operators, from 0 on.
    """

    partitions: int
    outside: Mapping[str, int]
    places: tuple[int, ...]


def examine_delegation(file: Path) -> Delegation:
    """Load a file twice, without running it, and see what became of its operators.

    With node fusion disabled every operator that the delegate takes gets a delegate node of its
    own, which has the operator's outputs. Which operators these are is the same as when each one
    is cut out into a file by itself, and fused partitions hold no others (measured with
    ai-edge-litert 2.3.0).

    Raises:
        ExportFailed: LiteRT does not load the file.
    """
    operators, single = _plan(file, is_fused=False)
    _, fused = _plan(file, is_fused=True)
    taken = {tensor for node in single for tensor in _outputs(node)}
    outside = {
        place: str(node["op_name"])
        for place, node in enumerate(operators)
        if taken.isdisjoint(_outputs(node))
    }
    return Delegation(
        partitions=len(fused), outside=dict(Counter(outside.values())), places=tuple(outside)
    )


def fallen_out(integer: Delegation, floating: Delegation) -> dict[str, int]:
    """Operators outside of the delegate in an integer file beyond those in its float file.

    Those that the float file keeps outside too do not explain why the integer file is slower.
    """
    counts = {
        name: count - floating.outside.get(name, 0) for name, count in integer.outside.items()
    }
    return {name: count for name, count in counts.items() if count > 0}


def _plan(file: Path, *, is_fused: bool) -> tuple[list[Any], list[Any]]:
    """The file's own operators in execution order, and the delegate's nodes that stand for some.

    The runtime keeps the former and appends the latter when it allocates the tensors.
    """
    from ai_edge_litert.interpreter import Interpreter

    with without_banner():
        try:
            interpreter = Interpreter(
                model_path=str(file),
                num_threads=1,
                experimental_disable_delegate_node_fusion=not is_fused,
            )
            count = len(interpreter._get_ops_details())
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:  # it knows no others
            raise refused(file, f"LiteRT {LiteRtRuntime().version()}", str(error)) from error
    nodes = interpreter._get_ops_details()
    return nodes[:count], nodes[count:]


def _outputs(node: Mapping[str, Any]) -> set[int]:
    return {int(tensor) for tensor in node["outputs"]}
