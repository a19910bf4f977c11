"""Kit graphs: what the board builds engines from, one graph for each precision of its GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.exporters.half import HalfGraph, half_graph
from edgeship.exporters.half_placement import Why, float32_nodes
from edgeship.exporters.tensorrt.insertion import with_pairs
from edgeship.exporters.tensorrt.narrowing import is_narrowed, with_narrow_types
from edgeship.exporters.tensorrt.opset import at_opset
from edgeship.exporters.tensorrt.placement import Placement, placement
from edgeship.exporters.tensorrt.scales import activation_scales

if TYPE_CHECKING:
    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.tensorrt.rules import RuledNodes
    from edgeship.targets.tensorrt_facts import TensorRtFacts

FP16: Final = "fp16"
INT8: Final = "int8"
_BEYOND_HALF: Final = frozenset({Why.RULE, Why.CONSTANT, Why.MASK, Why.RANGE})
"""Why a node may not be in FP16, whatever TensorRT would choose for its operator."""


@dataclass(frozen=True, kw_only=True)
class KitGraph:
    """One graph of a kit.

    Attributes:
        name: `FP16` or `INT8`: the precision that the engine is for.
        proto: With the metadata of its nodes.
        float32_nodes: Nodes that FP16 does not hold; where types are weak, the builder must be
            told of them.
    """

    name: str
    proto: onnx.ModelProto
    float32_nodes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class KitGraphs:
    """The graphs of a kit, and how they came about.

    Attributes:
        graphs: FP16, and INT8 where the GPU has it and a layer gains from it.
        placed: Where INT8 is; None where the GPU has none.
        half: What is in float16 where graphs have types; None where they are float32.
    """

    graphs: Sequence[KitGraph]
    placed: Placement | None
    half: HalfGraph | None

    def graph(self, name: str) -> KitGraph | None:
        """The graph of a precision, if there is one."""
        return next((graph for graph in self.graphs if graph.name == name), None)


def kit_graphs(
    proto: onnx.ModelProto, ranges: Ranges, ruled: RuledNodes, facts: TensorRtFacts
) -> KitGraphs:
    """Make the graphs for one TensorRT on one GPU.

    Up to 10.12 both are float32 at an older opset: flags of the builder let TensorRT choose FP16
    and INT8, and the float32 scales of Q and DQ say where INT8 is. From 10.13 on types are the
    graph's: FP16 with Q and DQ of FP16 scales.

    Args:
        proto: A Graph; not modified.
        ranges: Of the tensors in `observed_tensors`.
        ruled: What the recipe says of single nodes.
        facts: Of the TensorRT and the GPU.

    Raises:
        ExportFailed: An operator has no form in that opset.
    """
    placed = None
    if facts.has_int8:
        placed = placement(proto, ranges, kept=ruled.kept, forced=ruled.forced)
    if facts.is_strongly_typed:
        return _typed_graphs(proto, ranges, ruled, placed, facts.opset)
    return _untyped_graphs(proto, ranges, ruled, placed, facts)


def _typed_graphs(
    proto: onnx.ModelProto,
    ranges: Ranges,
    ruled: RuledNodes,
    placed: Placement | None,
    opset: int,
) -> KitGraphs:
    """Types are given at opset 18, whose schemas say which operators take float16."""
    half = half_graph(proto, ranges, ruled.full)
    typed = at_opset(half.proto, opset).proto
    graphs = [KitGraph(name=FP16, proto=typed)]
    if placed is not None and placed.activations:
        paired = with_pairs(typed, placed, activation_scales(placed.groups, ranges))
        graphs.append(KitGraph(name=INT8, proto=paired))
    return KitGraphs(graphs=graphs, placed=placed, half=half)


def _untyped_graphs(
    proto: onnx.ModelProto,
    ranges: Ranges,
    ruled: RuledNodes,
    placed: Placement | None,
    facts: TensorRtFacts,
) -> KitGraphs:
    """Pairs are put in before the opset is lowered: names of inputs are those of the Graph."""
    stays = float32_nodes(proto, ranges, ruled.full)
    beyond = {name for name, stay in stays.items() if stay.why in _BEYOND_HALF}
    graphs = [_untyped_graph(FP16, proto, facts, beyond)]
    if placed is not None and placed.activations:
        quantized = {name for name, _ in placed.activations}
        paired = with_pairs(proto, placed, activation_scales(placed.groups, ranges))
        graphs.append(_untyped_graph(INT8, paired, facts, beyond - quantized))
    return KitGraphs(graphs=graphs, placed=placed, half=None)


def _untyped_graph(
    name: str, proto: onnx.ModelProto, facts: TensorRtFacts, beyond: set[str]
) -> KitGraph:
    """What became of a node is float32 as the node was.

    So is a LayerNormalization in single steps: squares of what it centres leave FP16 at 256.
    """
    if is_narrowed(facts):
        proto = with_narrow_types(proto, facts)
    made = at_opset(proto, facts.opset)
    norms = {node.name for node in proto.graph.node if node.op_type == "LayerNormalization"}
    split = beyond | norms.intersection(made.origins.values())
    float32 = [
        node.name
        for node in made.proto.graph.node
        if made.origins.get(node.name, node.name) in split
    ]
    return KitGraph(name=name, proto=made.proto, float32_nodes=float32)
