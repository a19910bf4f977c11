"""Layer: a convolution or a linear layer whose weight is a parameter, seen as blocks of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import is_tensor, module_name

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Use

_ATEN: Final = torch.ops.aten
_CONVOLUTIONS: Final[Mapping[object, int]] = {
    _ATEN.conv1d.default: 1,
    _ATEN.conv2d.default: 2,
    _ATEN.conv3d.default: 3,
    _ATEN.conv1d.padding: 1,
    _ATEN.conv2d.padding: 2,
    _ATEN.conv3d.padding: 3,
}
"""Number of spatial dimensions by operator; groups are argument 6."""
_TRANSPOSED: Final[Mapping[object, int]] = {
    _ATEN.conv_transpose1d.default: 1,
    _ATEN.conv_transpose2d.input: 2,
    _ATEN.conv_transpose3d.input: 3,
}
"""The same, but that input channels come first in the weight."""
_GROUPS: Final = 6
LAYERS: Final[Collection[object]] = frozenset({*_CONVOLUTIONS, *_TRANSPOSED, _ATEN.linear.default})


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node that multiplies by a weight.

    Attributes:
        node: Its arguments are input, weight, and maybe a bias.
        groups: Of channels; an output reads only the inputs of its own group.
        axis: Of the channels, in its input and in its output.
        is_transposed: Whether the weight is `[inputs, outputs / groups, ...]`.
    """

    node: fx.Node
    groups: int
    axis: int
    is_transposed: bool

    @property
    def source(self) -> object:
        """What it reads."""
        return self.node.args[0]

    @property
    def weight(self) -> fx.Node:
        """The get_attr node of its weight."""
        weight = self.node.args[1]
        assert is_tensor(weight)
        return weight

    @property
    def bias(self) -> fx.Node | None:
        """The get_attr node of its bias."""
        bias = argument(self.node, 2, "bias")
        return bias if is_tensor(bias) else None

    def rows(self, program: FloatProgram) -> Tensor:
        """The weight as float32[groups, outputs / groups, inputs / groups, kernel]."""
        weight = program.tensor(self.weight)
        kernel = prod(weight.shape[2:])
        if self.is_transposed:
            blocks = weight.reshape(self.groups, -1, weight.shape[1], kernel)
            return blocks.transpose(1, 2)
        return weight.reshape(self.groups, -1, weight.shape[1], kernel)

    def set_rows(self, program: FloatProgram, rows: Tensor) -> None:
        """Inverse of `rows`."""
        program.set_tensor(self.weight, self.weight_of(program, rows))

    def weight_of(self, program: FloatProgram, rows: Tensor) -> Tensor:
        """Rows in the shape of the weight."""
        blocks = rows.transpose(1, 2) if self.is_transposed else rows
        return blocks.reshape(program.tensor(self.weight).shape)

    def set_bias(self, program: FloatProgram, bias: Tensor) -> None:
        """Give it a bias of its own, float32[outputs]: one that other nodes read is left to them.

        A new one is named after the weight, `layer1.conv.bias` beside `layer1.conv.weight`.
        """
        known = self.bias
        if known is not None and count_uses(known) == 1:
            program.set_tensor(known, bias)
            return
        owner, dot, _ = str(self.weight.target).rpartition(".")
        added = program.add_tensor(f"{owner}{dot}bias", bias, before=self.node)
        set_argument(self.node, 2, "bias", added)


def layer_of(node: fx.Node) -> Layer | None:
    """The layer that a node is; None where its weight or its bias is computed."""
    if node.target not in LAYERS or not is_tensor(node.args[1]):
        return None
    bias = argument(node, 2, "bias")
    if bias is not None and not is_tensor(bias):
        return None
    dimensions = node.meta["val"].dim()
    if node.target is _ATEN.linear.default:
        return Layer(node=node, groups=1, axis=dimensions - 1, is_transposed=False)
    is_transposed = node.target in _TRANSPOSED
    spatial = (_TRANSPOSED if is_transposed else _CONVOLUTIONS)[node.target]
    groups = argument(node, _GROUPS, "groups")
    return Layer(
        node=node,
        groups=groups if isinstance(groups, int) else 1,
        axis=dimensions - 1 - spatial,
        is_transposed=is_transposed,
    )


def layers_of(program: FloatProgram) -> list[Layer]:
    """All layers, in the order of the graph."""
    found = (layer_of(node) for node in program.calls(*LAYERS))
    return [layer for layer in found if layer is not None]


def is_kept(layer: Layer, use: Use) -> bool:
    """Whether the recipe keeps a layer in float."""
    name = module_name(layer.node)
    return any(fnmatchcase(name, pattern) for pattern in use.kept_modules)


def layer_name(layer: Layer) -> str:
    """For people: its module, or where it has none its weight."""
    return module_name(layer.node) or str(layer.weight.target)


def count_uses(tensor: fx.Node) -> int:
    """Arguments that take a parameter, under whatever node it is read."""
    return sum(
        sum(taken is node for taken in user.all_input_nodes)
        for node in tensor.graph.nodes
        if node.op == "get_attr" and node.target == tensor.target
        for user in node.users
    )


def argument(node: fx.Node, position: int, name: str) -> Any:  # noqa: ANN401 - of any type
    """An argument by position or by name; None where it is left out."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def set_argument(node: fx.Node, position: int, name: str, value: fx.Node) -> None:
    """Give an argument another value; those before it are there."""
    if len(node.args) > position:
        node.update_arg(position, value)
    elif len(node.args) == position:
        node.args = (*node.args, value)
    else:
        node.update_kwarg(name, value)
