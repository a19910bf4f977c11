"""Form: what a kit asks of any graph, whatever the version: sizes, names, static shapes."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tensorrt.lints.finding import Breach
from edgeship.exporters.tensorrt.lints.view import View
from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

_LARGEST: Final = 2**31 - 1
"""Bytes of one protobuf message, and elements of one TensorRT tensor (NvInfer.h, Dims)."""
_BITS: Final = {"DOUBLE": 64, "INT64": 64, "FLOAT": 32, "INT32": 32, "FLOAT16": 16, "BFLOAT16": 16}


def dynamic_shapes(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Inputs and outputs have static shapes: engines are built without profiles."""
    graph = view.proto.graph
    for direction, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            shape = view.shapes.get(value.name)
            if shape is None or None in shape:
                what = f"the shape of the {direction} is {_text(shape)}"
                yield Breach(where=value.name, what=what, remedy="export it with static sizes")


def unnamed_nodes(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Nodes have names of their own: layers of the engine, and findings, are known by them."""
    counts = Counter(node.name for node in view.nodes)
    for node in view.nodes:
        if not node.name:
            yield Breach(where=node, what="the node has no name", remedy="name it")
        elif counts[node.name] > 1:
            what = f"{counts[node.name]} nodes have this name"
            yield Breach(where=node, what=what, remedy="give each a name of its own")


def large_initializers(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """Weights fit into one file and one tensor."""
    total = 0
    for name, tensor in view.constants.items():
        elements = math.prod(tensor.dims)
        total += elements * _BITS.get(view.kinds.get(name, ""), 8) // 8
        if elements > _LARGEST:
            what = f"{elements} elements are more than one tensor holds"
            yield Breach(where=name, what=what, remedy="split the weight")
        if tensor.external_data:
            yield Breach(
                where=name,
                what="its values lie in another file",
                remedy="store them in the graph: a kit holds one file",
            )
    if total > _LARGEST:
        what = f"initializers of {total / 2**30:.1f} GiB do not fit into one ONNX file"
        yield Breach(where="graph", what=what, remedy="choose a smaller model")


def unsorted_nodes(view: View, _facts: TensorRtFacts) -> Iterator[Breach]:
    """A node reads what nodes before it give."""
    given = {value.name for value in view.proto.graph.input} | view.constants.keys() | {""}
    for node in view.nodes:
        missing = _missing(node, given)
        if missing:
            what = f"it reads {missing[0]}, which nothing before it gives"
            yield Breach(where=node, what=what, remedy="sort the nodes of the graph")
        given.update(node.output)


def _missing(node: onnx.NodeProto, given: set[str]) -> Sequence[str]:
    return [name for name in node.input if name not in given]


def _text(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else str(["?" if size is None else size for size in shape])
