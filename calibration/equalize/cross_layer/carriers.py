"""Carriers: operators through which a positive scale of each channel passes unchanged.

f(s x) = s f(x) for each s > 0: then it does not matter on which side of f a channel is scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Final

import torch
from torch import fx

from edgeship.calibration.equalize.cross_layer.layer import argument

_ATEN: Final = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a value has its channels.

    Attributes:
        space: Number of what it shares channels with; equal scales within it change nothing.
        axis: Of the channels, from 0 on.
        repeat: Entries next to each other that are of one channel, after a flattening.
    """

    space: int
    axis: int
    repeat: int = 1


def carried(node: fx.Node, place: Place) -> Place | None:
    """Where the channels of a node's only activation are in its value; None where they are lost.

    Args:
        node: A call with one argument that is an activation, the first.
        place: Of that argument.
    """
    rule = _RULES.get(node.target)
    return None if rule is None else rule(node, place)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Of the value of a node of a canonical program."""
    return tuple(node.meta["val"].shape)


def _everywhere(_: fx.Node, place: Place) -> Place:
    return place


def _relu_like(node: fx.Node, place: Place) -> Place | None:
    """A clamp at 0 from below or from above, and nowhere else."""
    low, high = argument(node, 1, "min"), argument(node, 2, "max")
    return place if {low, high} <= {0, None} else None


def _scaled(node: fx.Node, place: Place) -> Place | None:
    """A product with a number, or a quotient by one."""
    return place if isinstance(node.args[1], int | float) and len(node.args) == 2 else None


def _spatial(dimensions: int) -> Callable[[fx.Node, Place], Place | None]:
    def rule(node: fx.Node, place: Place) -> Place | None:
        return place if place.axis < len(shape_of(node)) - dimensions else None

    return rule


def _padded(node: fx.Node, place: Place) -> Place | None:
    """Of zeros, or of what is there; not of channels."""
    margins, mode = node.args[1], argument(node, 2, "mode") or "constant"
    assert isinstance(margins, list | tuple)
    is_zero = mode != "constant" or argument(node, 3, "value") in {None, 0}
    is_beside = place.axis < len(shape_of(node)) - len(margins) // 2
    return place if is_zero and is_beside else None


def _reduced(node: fx.Node, place: Place) -> Place | None:
    """A mean or a sum over other axes than that of the channels."""
    rank = len(shape_of(node.all_input_nodes[0]))
    axes = node.args[1] if len(node.args) > 1 else None
    if not isinstance(axes, list | tuple) or not axes:
        return None
    gone = {int(str(axis)) % rank for axis in axes}
    if place.axis in gone:
        return None
    if argument(node, 2, "keepdim"):
        return place
    return replace(place, axis=place.axis - sum(axis < place.axis for axis in gone))


def _permuted(node: fx.Node, place: Place) -> Place | None:
    order = node.args[1]
    assert isinstance(order, list | tuple)
    axes = [int(str(axis)) % len(order) for axis in order]
    return replace(place, axis=axes.index(place.axis))


def _transposed(node: fx.Node, place: Place) -> Place | None:
    rank = len(shape_of(node))
    one, other = (int(str(axis)) % rank for axis in node.args[1:3])
    return replace(place, axis={one: other, other: one}.get(place.axis, place.axis))


def _reshaped(node: fx.Node, place: Place) -> Place | None:
    """Channels keep what lies before them, and may take in what lies behind them."""
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    outer, width = prod(before[: place.axis]), before[place.axis]
    for axis, size in enumerate(after):
        if prod(after[:axis]) == outer and size >= width and size % width == 0:
            return replace(place, axis=axis, repeat=place.repeat * (size // width))
    return None


_RULES: Final[Mapping[object, Callable[[fx.Node, Place], Place | None]]] = {
    **dict.fromkeys(
        (
            _ATEN.relu.default,
            _ATEN.relu_.default,
            _ATEN.leaky_relu.default,
            _ATEN.leaky_relu_.default,
            _ATEN.prelu.default,
            _ATEN.abs.default,
            _ATEN.neg.default,
            _ATEN.dropout.default,
            _ATEN.dropout_.default,
            _ATEN.feature_dropout.default,
            _ATEN.alias.default,
            _ATEN.clone.default,
            _ATEN.contiguous.default,
            _ATEN.detach.default,
        ),
        _everywhere,
    ),
    **dict.fromkeys(
        (
            _ATEN.clamp.default,
            _ATEN.clamp_.default,
            _ATEN.clamp_min.default,
            _ATEN.clamp_min_.default,
        ),
        _relu_like,
    ),
    **dict.fromkeys(
        (
            _ATEN.mul.Tensor,
            _ATEN.mul_.Tensor,
            _ATEN.mul.Scalar,
            _ATEN.div.Tensor,
            _ATEN.div_.Tensor,
            _ATEN.div.Scalar,
        ),
        _scaled,
    ),
    **dict.fromkeys(
        (_ATEN.max_pool1d.default, _ATEN.avg_pool1d.default, _ATEN.adaptive_avg_pool1d.default),
        _spatial(1),
    ),
    **dict.fromkeys(
        (
            _ATEN.max_pool2d.default,
            _ATEN.avg_pool2d.default,
            _ATEN.adaptive_avg_pool2d.default,
            _ATEN.upsample_nearest2d.vec,
            _ATEN.upsample_bilinear2d.vec,
        ),
        _spatial(2),
    ),
    _ATEN.pad.default: _padded,
    **dict.fromkeys((_ATEN.mean.dim, _ATEN.sum.dim_IntList), _reduced),
    _ATEN.permute.default: _permuted,
    _ATEN.transpose.int: _transposed,
    **dict.fromkeys(
        (
            _ATEN.flatten.using_ints,
            _ATEN.view.default,
            _ATEN.reshape.default,
            _ATEN.squeeze.default,
            _ATEN.squeeze.dim,
            _ATEN.squeeze.dims,
            _ATEN.unsqueeze.default,
        ),
        _reshaped,
    ),
}
