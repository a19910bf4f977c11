"""View: a graph by its tensors: who gives them, who reads them, what is known of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import onnx

MARKS: Final = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class View:
    """A model by its tensors; subgraphs are left out, but for `all_nodes`.

    Attributes:
        proto: The model, as given.
        nodes: Of the graph, in its order.
        all_nodes: These and those of every subgraph.
        producers: Tensor -> the node that gives it.
        readers: Tensor -> the nodes that read it, each with the position of its input.
        constants: Tensor -> its value, of initialisers and Constant nodes.
        kinds: Tensor -> its type, by the name of the ONNX enumeration; absent where unknown.
        shapes: Tensor -> its sizes, None for one that is unknown; absent where unknown.
    """

    proto: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    all_nodes: Sequence[onnx.NodeProto]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, Sequence[tuple[onnx.NodeProto, int]]]
    constants: Mapping[str, onnx.TensorProto]
    kinds: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]

    def of_type(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes of these operators."""
        return (node for node in self.nodes if node.op_type in kinds)

    def consumers(self, node: onnx.NodeProto) -> list[tuple[onnx.NodeProto, int]]:
        """Readers of the node's first output."""
        return list(self.readers.get(node.output[0], ())) if node.output else []

    def dequantizer(self, tensor: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that gives the tensor, None where none does."""
        node = self.producers.get(tensor)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def before_pair(self, dequantizer: onnx.NodeProto) -> str:
        """The tensor that was quantized: of a lone DequantizeLinear, its integers."""
        integers = dequantizer.input[0] if dequantizer.input else ""
        quantizer = self.producers.get(integers)
        is_pair = quantizer is not None and quantizer.op_type == "QuantizeLinear"
        return quantizer.input[0] if is_pair and quantizer is not None else integers

    def after_pair(self, quantizer: onnx.NodeProto) -> list[tuple[onnx.NodeProto, int]]:
        """Readers of what a QuantizeLinear's values become when they are dequantized."""
        return [
            reader
            for node, _ in self.consumers(quantizer)
            if node.op_type == "DequantizeLinear"
            for reader in self.consumers(node)
        ]

    def weight_of(self, tensor: str) -> str | None:
        """The constant behind a tensor: itself, or what is dequantized; None where it is none."""
        if tensor in self.constants:
            return tensor
        dequantizer = self.dequantizer(tensor)
        before = None if dequantizer is None else self.before_pair(dequantizer)
        return before if before in self.constants else None

    def values(self, tensor: str) -> np.ndarray | None:
        """Values of a constant; None where it is none, or its bytes are not in the file."""
        from onnx import numpy_helper

        proto = self.constants.get(tensor)
        if proto is None:
            return None
        try:
            return numpy_helper.to_array(proto)
        except Exception:  # bytes that do not fit the shape, or lie in another file: not our rule
            return None

    def numbers(self, tensor: str) -> np.ndarray | None:
        """float64[n], values of a constant in its order; None where it holds no numbers."""
        values = self.values(tensor)
        try:
            return None if values is None else values.astype("float64").reshape(-1)
        except (TypeError, ValueError):  # texts
            return None


def input_of(node: onnx.NodeProto, position: int) -> str:
    """Name of an input, "" where the node has none there."""
    return node.input[position] if len(node.input) > position else ""


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """Value of an attribute: a number, a text or a list; texts are decoded."""
    from onnx import helper

    found = next((item for item in node.attribute if item.name == name), None)
    if found is None:
        return default
    try:
        value: object = helper.get_attribute_value(found)
    except ValueError:  # an attribute without a type
        return default
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def view_of(proto: onnx.ModelProto) -> View:
    """The view of a model; `proto` is not modified."""
    nodes = list(proto.graph.node)
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in nodes:
        for position, name in enumerate(node.input):
            if name:
                readers[name].append((node, position))
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in nodes:
        value = next((item for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and node.output and value is not None and value.HasField("t"):
            constants[node.output[0]] = value.t
    kinds, shapes = _inferred(proto, constants)
    return View(
        proto=proto,
        nodes=nodes,
        all_nodes=list(_all_nodes(proto.graph)),
        producers={name: node for node in nodes for name in node.output if name},
        readers=readers,
        constants=constants,
        kinds=kinds,
        shapes=shapes,
    )


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.HasField("g"):
                yield from _all_nodes(item.g)


def _inferred(
    proto: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]
) -> tuple[dict[str, str], dict[str, tuple[int | None, ...]]]:
    """Types and shapes: as the file says, else as ONNX infers them."""
    import onnx

    graph = proto.graph
    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except Exception:  # of a file that is not valid or too large less is known: other rules say so
        graph = proto.graph
    kinds = {name: _kind(tensor.data_type) for name, tensor in constants.items()}
    shapes: dict[str, tuple[int | None, ...]] = {
        name: tuple(tensor.dims) for name, tensor in constants.items()
    }
    for value in (*graph.value_info, *graph.output, *graph.input):
        tensor = value.type.tensor_type
        kinds[value.name] = _kind(tensor.elem_type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
            )
    return {name: kind for name, kind in kinds.items() if kind}, shapes


def _kind(number: int) -> str:
    from onnx import TensorProto

    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return "" if number == TensorProto.UNDEFINED else names.get(number, str(number))
