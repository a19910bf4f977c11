"""Norms: LayerNorm and RMSNorm, as one operator or written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from edgeship.calibration.equalize.rotate.operators import axes, operand, shape, width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from edgeship.calibration.equalize.program import FloatProgram

aten = torch.ops.aten
_WHOLE: Final = (aten.layer_norm.default, aten.rms_norm.default)
_TINY: Final = float(torch.finfo(torch.float32).eps)
"""What rms_norm adds where it is told nothing (torch.nn.RMSNorm)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Norm:
    """x -> gain * x / sqrt(mean(x**2) + epsilon) + shift, where a LayerNorm first centres x.

    Attributes:
        source: x.
        output: The node that gives the result.
        inner: All nodes of it, `output` last.
        gain: A get_attr node, or None for 1; `shift` likewise for 0.
        is_centred: Whether the mean is subtracted.
    """

    source: fx.Node
    output: fx.Node
    inner: tuple[fx.Node, ...]
    gain: fx.Node | None
    shift: fx.Node | None
    epsilon: float
    is_centred: bool

    @property
    def width(self) -> int:
        """Size of the last axis."""
        return width(self.output)


def find_norms(program: FloatProgram) -> list[Norm]:
    """Every norm over the last axis alone, in order."""
    return list(_norms(program))


def _norms(program: FloatProgram) -> Iterator[Norm]:
    for node in program.graph.nodes:
        if node.target in _WHOLE and len(node.args[1]) == 1:
            yield _layer_norm(node) if node.target is _WHOLE[0] else _rms_norm(node)
        elif node.target is aten.rsqrt.default:
            found = _written_out(node)
            if found is not None:
                yield found


def _layer_norm(node: fx.Node) -> Norm:
    return _whole(node, shift=operand(node, 3), epsilon=_number(node, 4, 1e-5), is_centred=True)


def _rms_norm(node: fx.Node) -> Norm:
    return _whole(node, shift=None, epsilon=_number(node, 3, _TINY), is_centred=False)


def _whole(node: fx.Node, *, shift: fx.Node | None, epsilon: float, is_centred: bool) -> Norm:
    source = operand(node)
    assert source is not None  # by both schemas, as the gain's place
    return Norm(
        source=source,
        output=node,
        inner=(node,),
        gain=operand(node, 2),
        shift=shift,
        epsilon=epsilon,
        is_centred=is_centred,
    )


def _number(node: fx.Node, place: int, default: float) -> float:
    value = node.args[place] if len(node.args) > place else None
    return float(value) if isinstance(value, (int, float)) else default


def _written_out(root: fx.Node) -> Norm | None:
    """The norm x * rsqrt(mean(x ** 2, -1) + epsilon), then perhaps times a gain."""
    total = operand(root)
    mean = None if total is None or total.target is not aten.add.Tensor else operand(total)
    square = None if mean is None else _operand_of_mean(mean)
    source = None if square is None else _squared(square)
    users = list(root.users)
    if total is None or mean is None or square is None or source is None or len(users) != 1:
        return None
    inner = [square, mean, total, root, users[0]]
    is_closed = all(len(node.users) == 1 for node in inner[:-1]) and not total.kwargs
    if not is_closed or operand(total, 1) or not _is_product(users[0], source, root):
        return None
    gain = _gain_after(users[0])
    return Norm(
        source=source,
        output=users[0] if gain is None else next(iter(users[0].users)),
        inner=(*inner, *(users[0].users if gain is not None else ())),
        gain=gain,
        shift=None,
        epsilon=_number(total, 1, 0.0),
        is_centred=False,
    )


def _operand_of_mean(node: fx.Node) -> fx.Node | None:
    source = operand(node)
    if node.target is not aten.mean.dim or source is None or node.args[2:] != (True,):
        return None
    rank = len(shape(source))
    return source if axes(node, 1, rank) == (rank - 1,) else None


def _squared(node: fx.Node) -> fx.Node | None:
    is_power = node.target is aten.pow.Tensor_Scalar and node.args[1] == 2
    is_product = node.target is aten.mul.Tensor and node.args[0] is node.args[1]
    return operand(node) if is_power or is_product else None


def _is_product(node: fx.Node, one: fx.Node, other: fx.Node) -> bool:
    return node.target is aten.mul.Tensor and set(node.args) == {one, other}


def _gain_after(node: fx.Node) -> fx.Node | None:
    """The parameter of the last axis that the only reader of a node multiplies it by."""
    users = list(node.users)
    if len(users) != 1 or users[0].target is not aten.mul.Tensor:
        return None
    others = [item for item in users[0].all_input_nodes if item is not node]
    is_gain = len(others) == 1 and others[0].op == "get_attr" and len(shape(others[0])) == 1
    return others[0] if is_gain and width(others[0]) == width(node) else None
