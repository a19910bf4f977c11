"""Notes: what is said of a kit, first of all that no engine was built."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgeship.exporters.half_notes import stay_notes
from edgeship.exporters.tensorrt.kit.layer_types import FIRST_API, FIRST_TRTEXEC
from edgeship.exporters.tensorrt.kit_graphs import INT8
from edgeship.source.graph import module_of_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.tensorrt.kit_graphs import KitGraphs
    from edgeship.exporters.tensorrt.placement import Placement
    from edgeship.targets.tensorrt_facts import TensorRtFacts


def kit_notes(
    proto: onnx.ModelProto, made: KitGraphs, ranges: Ranges, facts: TensorRtFacts
) -> Iterator[str]:
    """Lines for the manifest; `proto` is the Graph that the kit was made of."""
    release = ".".join(map(str, facts.release))
    yield f"engine not built: build_engine.py builds it on the board, with TensorRT {release}"
    yield from facts.notes
    if made.half is None:
        yield (
            "fp16.onnx holds float32: a flag of the builder lets TensorRT compute it in FP16;"
            " overflow was judged from representative data"
        )
    else:
        yield "computed in FP16: overflow was judged from representative data"
        yield from stay_notes(proto, made.half)
    yield from _int8_notes(proto, made, facts)
    yield from _float32_notes(made, facts)
    if made.graph(INT8) is not None and ranges.dead:
        yield f"zero on all representative data: {', '.join(sorted(ranges.dead))}"


def _int8_notes(proto: onnx.ModelProto, made: KitGraphs, facts: TensorRtFacts) -> Iterator[str]:
    if made.placed is None:
        yield f"no int8.onnx: {facts.int8_reason}"
        return
    if made.graph(INT8) is None:
        yield "no int8.onnx: no layer of the model gains from it"
    else:
        count = len({name for name, _ in made.placed.weights})
        pairs = len(made.placed.tensors)
        yield f"int8.onnx: {count} layers with INT8 weights, {pairs} quantized activations"
    yield from _refusal_notes(proto, made.placed)


def _refusal_notes(proto: onnx.ModelProto, placed: Placement) -> Iterator[str]:
    """Layers that are not in INT8, by the reason."""
    nodes = {node.name: node for node in proto.graph.node}
    for reason in dict.fromkeys(placed.refused.values()):
        found = [nodes[name] for name, why in placed.refused.items() if why is reason]
        kinds = Counter(node.op_type for node in found)
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        module = module_of_node(found[0])
        place = f"{found[0].name} of {module}" if module else found[0].name
        yield f"not in INT8: {counted} ({reason}), the first is {place}"


def _float32_notes(made: KitGraphs, facts: TensorRtFacts) -> Iterator[str]:
    """Where a graph has no types, the builder has to keep what FP16 does not hold."""
    names = made.graphs[0].float32_nodes
    if not names:
        return
    told = "build_engine.py has TensorRT obey that"
    if facts.release < FIRST_API:
        told = f"TensorRT {facts.version} cannot be told so, and build_engine.py refuses"
    elif facts.release < FIRST_TRTEXEC:
        told += f" through Python; trtexec {facts.version} cannot be told so, and is refused"
    yield f"{len(names)} layers stay in FP32, from {names[0]} on (kit.json, float32_nodes): {told}"
    int8 = made.graph(INT8)
    left = set(names).difference(int8.float32_nodes) if int8 is not None else set()
    if left:
        yield (
            f"{len(left)} of these are INT8 in int8.onnx, where TensorRT chooses the type of what "
            "they give: the golden pack shows what that costs"
        )
