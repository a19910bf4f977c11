"""Site: one node whose operator an older opset says otherwise, and what there is around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import onnx
from onnx import numpy_helper

from edgeship.exporters.tensorrt.wiring import attributes_of

if TYPE_CHECKING:
    import numpy as np

    from edgeship.exporters.tensorrt.wiring import Wiring


class Unfit(Exception):
    """What a node asks for cannot be said in the older opset; the text says what that is."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One node to be rewritten, and what there is around it.

    Attributes:
        node: A copy of its own.
        opset: The version that is wanted.
        wiring: Of the Graph.
        constants: Initializers that the rules add.
        taken: Names of tensors and nodes that there are.
    """

    node: onnx.NodeProto
    opset: int
    wiring: Wiring
    constants: list[onnx.TensorProto]
    taken: set[str]

    @property
    def attributes(self) -> Mapping[str, object]:
        """Of the node."""
        return attributes_of(self.node)

    def input(self, index: int) -> str:
        """Name of an input, "" where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def rank(self, tensor: str) -> int:
        """Axes of a tensor."""
        return len(self.wiring.shape(tensor))

    def constant_input(self, index: int, what: str) -> np.ndarray | None:
        """Values of an input that must be constant; None where it is left out."""
        name = self.input(index)
        if not name:
            return None
        if not self.wiring.is_constant(name):
            self.refuse(f"with {what} that is computed")
        return self.wiring.constant(name)

    def refuse(self, what: str) -> NoReturn:
        """Give up, with what it is about the node.

        Raises:
            Unfit: Always.
        """
        msg = f"{self.node.op_type} {what}"
        raise Unfit(msg)

    def new_name(self, wanted: str) -> str:
        """A name that nothing has."""
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def add_constant(self, values: np.ndarray, what: str) -> str:
        """Name of a new initializer."""
        name = self.new_name(f"{self.node.output[0]}_{what}")
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def drop(self, *names: str) -> None:
        """Remove attributes of the node."""
        kept = [item for item in self.node.attribute if item.name not in names]
        del self.node.attribute[:]
        self.node.attribute.extend(kept)

    def give(self, name: str, value: object) -> None:
        """Set an attribute of the node."""
        self.drop(name)
        self.node.attribute.append(onnx.helper.make_attribute(name, value))

    def step(
        self,
        kind: str,
        inputs: list[str],
        what: str,
        **attributes: Any,  # noqa: ANN401 - of the operator
    ) -> onnx.NodeProto:
        """A new node beside the old one; it gives one tensor of its own."""
        output = self.new_name(f"{self.node.output[0]}_{what}")
        name = self.new_name(f"{self.node.name}_{what}")
        return onnx.helper.make_node(kind, inputs, [output], name=name, **attributes)
