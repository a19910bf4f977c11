"""Products: nodes that multiply an activation by a constant matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import FloatProgram, is_tensor

_ATEN: Final = torch.ops.aten
_PLACES: Final[Mapping[object, tuple[int, int, int]]] = {
    _ATEN.linear.default: (0, 1, 1),
    _ATEN.matmul.default: (0, 1, 0),
    _ATEN.mm.default: (0, 1, 0),
    _ATEN.addmm.default: (1, 2, 0),
}
"""Position of the activation, of the matrix, and the matrix's axis of input channels."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """One such node.

    Attributes:
        source: The activation, float32[..., C].
        weight: The get_attr node of the matrix.
        input_axis: Axis of length C in the matrix, 0 or 1.
    """

    node: fx.Node
    source: fx.Node
    weight: fx.Node
    input_axis: int

    def matrix(self, program: FloatProgram) -> Tensor:
        """The weight as float32[out, C], a view."""
        weight = program.tensor(self.weight)
        return weight if self.input_axis == 1 else weight.T

    def multiply(self, program: FloatProgram, scale: Tensor) -> None:
        """Edit the weight: what comes in channel c counts `scale[c]` times as much.

        Args:
            program: Edited in place.
            scale: float32[C], positive.
        """
        matrix = self.matrix(program) * scale
        program.set_tensor(self.weight, matrix if self.input_axis == 1 else matrix.T)


def products(program: FloatProgram, uses: Mapping[int, int]) -> Iterator[Product]:
    """All whose matrix nothing else reads, in the order of the graph.

    Args:
        program: Not modified.
        uses: See `tensor_uses`.
    """
    for node in program.calls(*_PLACES):
        found = _product(program, node)
        if found is not None and uses[program.tensor(found.weight).data_ptr()] == 1:
            yield found


def tensor_uses(program: FloatProgram) -> Counter[int]:
    """How many nodes read each tensor, by its address: tied weights can have two names."""
    uses: Counter[int] = Counter()
    for node in program.graph.nodes:
        if is_tensor(node):
            uses[program.tensor(node).data_ptr()] += len(node.users)
    return uses


def _product(program: FloatProgram, node: fx.Node) -> Product | None:
    activation, matrix, input_axis = _PLACES[node.target]
    source, weight = node.args[activation], node.args[matrix]
    if node.kwargs or not isinstance(source, fx.Node) or is_tensor(source):
        return None
    if not is_tensor(weight):
        return None
    value = program.tensor(weight)
    if value.ndim != 2 or value.dtype != torch.float32:
        return None
    return Product(node=node, source=source, weight=weight, input_axis=input_axis)
