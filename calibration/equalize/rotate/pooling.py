"""Pooling: a mean over tokens, weighed by a mask or not, through which a linear map may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from edgeship.calibration.equalize.rotate.operators import axes, operand, shape

if TYPE_CHECKING:
    from torch import fx

aten = torch.ops.aten
_SPREADS: Final = (
    aten.expand.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.type_as.default,
    aten.expand_as.default,
)
_FLOORS: Final = (aten.clamp.default, aten.clamp_min.default, aten.maximum.default)


def pooled_mean(node: fx.Node) -> fx.Node | None:
    """sum(x * mask) / sum(mask), if it is all that reads a node x; the division.

    An affine map of the mean is the mean of the map: the weights sum to 1, but for an input that
    is masked as a whole.
    """
    product = _only_reader(node, aten.mul.Tensor)
    total = None if product is None else _only_reader(product, aten.sum.dim_IntList)
    mean = None if total is None else _only_reader(total, aten.div.Tensor)
    if product is None or total is None or mean is None or operand(mean) is not total:
        return None
    mask = operand(product, 1) if operand(product) is node else operand(product)
    count = operand(mean, 1)
    if count is not None and count.target in _FLOORS:
        count = operand(count)
    if mask is None or count is None or count.target is not aten.sum.dim_IntList:
        return None
    counted = operand(count)
    assert counted is not None  # a sum is of a tensor
    rank = len(shape(node))
    over = axes(total, 1, rank)
    is_same = axes(count, 1, rank) == over and _base(mask) is _base(counted)
    return mean if is_same and rank - 1 not in over and shape(_base(mask))[-1:] == (1,) else None


def _only_reader(node: fx.Node, target: object) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is target else None


def _base(node: fx.Node) -> fx.Node:
    """What a mask is an expansion of, in another type or not."""
    source = operand(node)
    while node.target in _SPREADS and source is not None:
        node, source = source, operand(source)
    return node
