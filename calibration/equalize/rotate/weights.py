"""Weights: the parameters of layers while matrices are multiplied into them, in float64."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torch import Tensor, fx

from edgeship.calibration.equalize.program import is_tensor, module_name
from edgeship.calibration.equalize.rewrite import NothingToRewrite

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram


class Weights:
    """Changed tensors of a program, which gets them by `write`, rounded once.

    What two nodes share is not changed.
    """

    def __init__(self, program: FloatProgram) -> None:
        self._program = program
        self._changed: dict[fx.Node, Tensor] = {}
        self._added: dict[fx.Node, Tensor] = {}
        self._without: set[fx.Node] = set()
        nodes = [node for node in program.graph.nodes if is_tensor(node) and "val" in node.meta]
        self._uses: Counter[int] = Counter()
        for node in nodes:
            self._uses[self._place(node)] += len(node.users)

    def is_shared(self, layer: fx.Node) -> bool:
        """Whether a parameter of a layer or a look-up, or a parameter itself, has other uses."""
        if is_tensor(layer):
            return self._uses[self._place(layer)] != len(layer.users)
        return any(self._uses[self._place(item)] > 1 for item in layer.args if is_tensor(item))

    def value(self, node: fx.Node) -> Tensor:
        """float64 of a get_attr node, as it is to become."""
        if node not in self._changed:
            return self._program.tensor(node).double()
        return self._changed[node]

    def weight(self, linear: fx.Node) -> Tensor:
        """float64[out, in] of a linear layer, as it is to become."""
        return self.value(self._weight_node(linear))

    def bias(self, linear: fx.Node) -> Tensor | None:
        """float64[out] of a linear layer, as it is to become."""
        if linear in self._added:
            return self._added[linear]
        node = _bias_node(linear)
        return None if node is None or linear in self._without else self.value(node)

    def set_value(self, node: fx.Node, value: Tensor) -> None:
        """Give a get_attr node another value of the same shape."""
        self._changed[node] = value

    def turn_output(self, linear: fx.Node, matrix: Tensor) -> None:
        """Let a linear layer give matrix @ y in place of y."""
        weight = self._weight_node(linear)
        self.set_value(weight, matrix @ self.value(weight))
        bias = self.bias(linear)
        if bias is not None:
            self._set_bias(linear, matrix @ bias)

    def turn_input(self, linear: fx.Node, matrix: Tensor, shift: Tensor | None = None) -> None:
        """Let a linear layer take u where it took matrix @ u + shift."""
        weight = self._weight_node(linear)
        if shift is not None:
            self.add_bias(linear, self.value(weight) @ shift)
        self.set_value(weight, self.value(weight) @ matrix)

    def add_bias(self, linear: fx.Node, addend: Tensor) -> None:
        """Add to a layer's bias; it gets one where it has none."""
        bias = self.bias(linear)
        if bias is not None or addend.any():
            self._set_bias(linear, addend if bias is None else bias + addend)

    def drop_bias(self, linear: fx.Node) -> None:
        """Take a layer's bias away."""
        self._without.add(linear)

    def write(self) -> None:
        """Change the program."""
        for node, value in self._changed.items():
            self._program.set_tensor(node, value.float())
        for linear, value in self._added.items():
            name = ".".join(filter(None, (module_name(linear), "bias")))
            bias = self._program.add_tensor(name, value.float(), before=linear)
            linear.args = (*linear.args[:2], bias)
        for linear in self._without - self._added.keys():
            linear.args = linear.args[:2]
        self._changed, self._added, self._without = {}, {}, set()

    def _set_bias(self, linear: fx.Node, value: Tensor) -> None:
        node = _bias_node(linear)
        if node is None or linear in self._without:
            self._added[linear] = value
        else:
            self.set_value(node, value)

    def _weight_node(self, linear: fx.Node) -> fx.Node:
        weight = linear.args[1]
        assert isinstance(weight, fx.Node)
        if self.is_shared(linear):
            message = f"layer {module_name(linear) or linear} shares its weight with another one"
            raise NothingToRewrite(message)
        return weight

    def _place(self, node: fx.Node) -> int:
        return self._program.tensor(node).data_ptr()


def _bias_node(linear: fx.Node) -> fx.Node | None:
    node = linear.args[2] if len(linear.args) > 2 else None
    return node if isinstance(node, fx.Node) else None
