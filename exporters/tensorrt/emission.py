"""Emission: the files of a kit, written and checked by the lints of its TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.artifact import Requirements, RuntimeNeed
from edgeship.exporters.half import output_rounding
from edgeship.exporters.onnx_file import forecast_memory, write_stripped_file
from edgeship.exporters.protocol import STAND_IN_NAME, Payload
from edgeship.exporters.tensorrt.kit_file import KIT_NAME, graph_file, write_kit_file
from edgeship.exporters.tensorrt.kit_graphs import KitGraphs, kit_graphs
from edgeship.exporters.tensorrt.lints import RULES, lint_graph
from edgeship.exporters.tensorrt.narrowing import is_narrowed, narrow_contract
from edgeship.exporters.tensorrt.notes import kit_notes
from edgeship.exporters.tensorrt.opset import ir_version_of
from edgeship.exporters.tensorrt.rules import ruled_nodes
from edgeship.exporters.tensorrt.stand_in import lifted
from edgeship.source.graph import module_of_node
from edgeship.targets.tensorrt_facts import tensorrt_facts
from edgeship.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.protocol import Lowered, Recipe
    from edgeship.targets import Target
    from edgeship.targets.tensorrt_facts import TensorRtFacts

RUNTIME: Final = "tensorrt"


def write_kit(
    proto: onnx.ModelProto,
    ranges: Ranges,
    lowered: Lowered,
    recipe: Recipe,
    target: Target,
    directory: Path,
) -> Payload:
    """Write the graphs, `kit.json`, and beside them what stands in for an engine on this host.

    The stand-in is the INT8 graph, where there is one, else the FP16 graph, in float32.

    Args:
        proto: The Graph in `lowered`; not modified.
        ranges: Of the tensors in `observed_tensors`.
        lowered: What it is of.
        recipe: Of the artifact.
        target: A board with a GPU and a TensorRT.
        directory: Empty.

    Raises:
        ExportFailed: A graph cannot be said in the opset of that TensorRT.
        ConfigurationError: A rule matches no module.
    """
    facts = tensorrt_facts(target)
    made = kit_graphs(proto, ranges, ruled_nodes(proto, recipe), facts)
    notes = [*kit_notes(proto, made, ranges, facts), *_lint_notes(made, facts)]
    stand_in = lifted(made.graphs[-1].proto)
    write_stripped_file(stand_in, directory / STAND_IN_NAME, ir_version=ir_version_of(stand_in))
    files = {}
    for graph in made.graphs:
        name = graph_file(graph)
        write_stripped_file(graph.proto, directory / name, ir_version=ir_version_of(graph.proto))
        files[name] = Role.MODEL
    contract = narrow_contract(lowered.contract) if is_narrowed(facts) else lowered.contract
    write_kit_file(made, contract, target, facts, directory)
    return Payload(
        files={**files, KIT_NAME: Role.PROGRAM},
        contract=contract,
        requires=Requirements(
            any_of=(RuntimeNeed(runtime=RUNTIME, min=facts.version),),
            memory_bytes=forecast_memory(made.graphs[0].proto),
        ),
        notes=tuple(notes),
        output_steps=output_rounding(proto, ranges),
    )


def _lint_notes(made: KitGraphs, facts: TensorRtFacts) -> Iterator[str]:
    """What TensorRT would refuse, misread or not fuse, as far as that can be known without it."""
    table = "derived" if facts.is_derived else "exact"
    for graph in made.graphs:
        findings = lint_graph(graph.proto, facts, module_of_node)
        yield (
            f"{graph_file(graph)}: {len(findings)} findings of the lints of {facts.version} "
            f"({len(RULES)} rules, operator table {table})"
        )
        yield from (f"{graph_file(graph)}: {finding}" for finding in findings)
