"""Operators: what a node takes, and what it does to the last axis of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, fx

aten = torch.ops.aten
ADDS: Final = (aten.add.Tensor, aten.add_.Tensor)
_VIEWS: Final = (
    aten.view.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.default,
    aten.expand.default,
    aten.repeat.default,
)
"""They keep the vectors along the last axis where its size stays."""
_ALONG: Final[Mapping[object, int]] = {
    aten.slice.Tensor: 1,
    aten.select.int: 1,
    aten.index_select.default: 1,
    aten.cat.default: 1,
    aten.stack.default: 1,
    aten.mean.dim: 1,
    aten.roll.default: 2,
}
"""Operators that work along axes, and where in their arguments those are. A sum is none of them: it
would make a bias several times as large."""


def operand(node: fx.Node, place: int = 0) -> fx.Node | None:
    """The node that is an argument; None where it is a number, a list or absent."""
    value = node.args[place] if len(node.args) > place else None
    return value if isinstance(value, fx.Node) else None


def axes(node: fx.Node, place: int, rank: int) -> tuple[int, ...]:
    """Axes that are an argument, from 0, of a tensor of `rank` axes; 0 where it is absent."""
    value = node.args[place] if len(node.args) > place else 0
    listed = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(axis) % rank for axis in listed if isinstance(axis, int))


def shape(node: fx.Node) -> tuple[int, ...]:
    """Of a node's value; () where it is no tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def width(node: fx.Node) -> int:
    """Size of the last axis of a node's float value; 0 for any other value."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.dim() or not value.is_floating_point():
        return 0
    return int(value.shape[-1])


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors of its own width."""
    operands = (operand(node), operand(node, 1)) if node.target in ADDS else ()
    return (
        bool(operands)
        and not node.kwargs
        and all(item is not None and width(item) == width(node) > 1 for item in operands)
    )


def carried(node: fx.Node) -> tuple[fx.Node, ...]:
    """The operands whose vectors along the last axis a node hands on, moved or averaged; or none.

    An affine map may as well be applied to the operands' vectors as to those of the node.
    """
    first = node.args[0] if node.args else None
    sources = tuple(first) if isinstance(first, (list, tuple)) else (first,)
    nodes = tuple(item for item in sources if isinstance(item, fx.Node))
    if not nodes or len(nodes) < len(sources) or any(width(item) != width(node) for item in nodes):
        return ()
    return nodes if _keeps_last_axis(node, len(shape(nodes[0]))) else ()


def _keeps_last_axis(node: fx.Node, rank: int) -> bool:
    if node.target in _VIEWS:
        return width(node) > 1
    if node.target in (aten.transpose.int, aten.permute.default):
        return turned_axes(node, rank)[-1] == rank - 1
    place = _ALONG.get(node.target)
    if place is None:
        return False
    counted = rank + 1 if node.target is aten.stack.default else rank
    along = axes(node, place, counted)
    return bool(along) and counted - 1 not in along


def turned_axes(node: fx.Node, rank: int) -> tuple[int, ...]:
    """The axes of its operand in the order that a transpose or permute gives them."""
    if node.target is aten.permute.default:
        return axes(node, 1, rank)
    order = list(range(rank))
    (one,), (two,) = axes(node, 1, rank), axes(node, 2, rank)
    order[one], order[two] = order[two], order[one]
    return tuple(order)
