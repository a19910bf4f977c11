"""Wiring: who gives and who reads each tensor of a Graph, and its static shape."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import onnx
from onnx import numpy_helper

from edgeship.exporters.tensorrt.tensor_types import tensor_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

Taker = tuple[str, int]
"""Name of a node, and the position of one of its inputs."""


class Wiring:
    """A Graph to look things up in; it is not modified.

    Attributes:
        nodes: By name, in the file's order.
        inputs: Names of the graph's inputs.
        outputs: Names of its outputs.
        floats: Names of the float32 activations.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.nodes = {node.name: node for node in graph.node}
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._types = tensor_types(proto)
        self.floats = {
            name
            for name, kind in self._types.items()
            if kind.element == onnx.TensorProto.FLOAT and name not in self._constants
        }
        self._producers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[Taker]] = defaultdict(list)
        for node in graph.node:
            for index, name in enumerate(node.input):
                self._readers[name].append((node.name, index))

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """None for inputs and constants."""
        return self._producers.get(tensor)

    def readers(self, tensor: str) -> Sequence[Taker]:
        """Inputs of nodes that are the tensor, in the file's order."""
        return self._readers.get(tensor, ())

    def reading_nodes(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes of `readers`."""
        return [self.nodes[name] for name, _ in self.readers(tensor)]

    def tensor(self, taker: Taker) -> str:
        """What the node has as that input."""
        name, index = taker
        return str(self.nodes[name].input[index])

    def is_constant(self, tensor: str) -> bool:
        """Whether it is an initializer."""
        return tensor in self._constants

    def constant(self, tensor: str) -> np.ndarray:
        """Values of an initializer."""
        return numpy_helper.to_array(self._constants[tensor])

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Of an activation or initializer; () where inference found none."""
        return self._types[tensor].shape if tensor in self._types else ()

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """The float tensors among its inputs that are no constants."""
        return [name for name in node.input if name in self.floats]


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """Values of the node's attributes by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def positions_of(shape: Sequence[int]) -> int:
    """Spatial positions of a tensor [N, C, ...]."""
    return math.prod(shape[2:])
