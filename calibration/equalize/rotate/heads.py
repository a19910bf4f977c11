"""Heads: the queries, keys and values of each attention head in another basis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from edgeship.calibration.equalize.rotate.hadamard import orthogonal
from edgeship.calibration.equalize.rotate.operators import (
    ADDS,
    axes,
    carried,
    operand,
    shape,
    turned_axes,
    width,
)
from edgeship.calibration.equalize.rotate.streams import is_foldable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, fx

    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rotate.weights import Weights

aten = torch.ops.aten
_PRODUCTS: Final = (aten.matmul.default, aten.bmm.default)
_SOFTMAXES: Final = (aten.softmax.int, aten._softmax.default)
_SPLITS: Final = (aten.view.default, aten.reshape.default, aten.unflatten.int)
_SCALINGS: Final = (aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar)


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention:
    """Softmax attention of several heads.

    Attributes:
        queries: What the scores are made of, and what gives the result: nodes of the last axis
            that a head has. `keys` and `values` likewise.
        output: What the values are weighed to.
        scores: The product of queries and keys; None where one operator does it all.
    """

    queries: fx.Node
    keys: fx.Node
    values: fx.Node
    output: fx.Node
    scores: fx.Node | None


def find_attentions(program: FloatProgram) -> list[Attention]:
    """Every attention, in order."""
    return list(_attentions(program))


def _attentions(program: FloatProgram) -> Iterator[Attention]:
    for node in program.graph.nodes:
        if node.target is aten.scaled_dot_product_attention.default:
            queries, keys, values = node.args[:3]
            yield Attention(queries=queries, keys=keys, values=values, output=node, scores=None)
        elif node.target in _SOFTMAXES:
            item = _written_out(node)
            if item is not None:
                yield item


def turn_heads(item: Attention, weights: Weights, seed: int) -> bool:
    """Rotate what an attention's layers give and take; False where no path leads to them."""
    is_turned = _turn_values(item, weights, seed)
    return _turn_scores(item, weights, seed + 1) or is_turned


def _turn_values(item: Attention, weights: Weights, seed: int) -> bool:
    source = _layer_before(item.values)
    reader = _layer_after(item.output)
    if source is None or reader is None or weights.is_shared(source) or weights.is_shared(reader):
        return False
    size = width(item.values)
    taken = weights.weight(reader).shape[1]
    bias = weights.bias(source)
    if bias is not None and len(bias) == taken:
        # each row of the softmax sums to 1; where heads of values repeat, it stays where it is
        weights.add_bias(reader, weights.weight(reader) @ bias)
        weights.drop_bias(source)
    turn = orthogonal(size, seed)
    weights.turn_output(source, _blocks(turn, width(source) // size))
    weights.turn_input(reader, _blocks(turn.T, taken // size))
    return True


def _turn_scores(item: Attention, weights: Weights, seed: int) -> bool:
    queries, keys = _layer_before(item.queries), _layer_before(item.keys)
    if queries is None or keys is None or weights.is_shared(queries) or weights.is_shared(keys):
        return False
    turn = orthogonal(width(item.queries), seed)
    if weights.bias(keys) is not None:  # it adds the same to each score of a row
        weights.drop_bias(keys)
    scale = 1.0 if item.scores is None else _take_scale(item.scores)
    for layer, factor in ((queries, scale), (keys, 1.0)):
        weights.turn_output(layer, _blocks(turn * factor, width(layer) // len(turn)))
    return True


def _written_out(softmax: fx.Node) -> Attention | None:
    """As softmax(queries @ keys.T ...) @ values."""
    users = list(softmax.users)
    if len(users) != 1 or users[0].target not in _PRODUCTS or operand(users[0]) is not softmax:
        return None
    values = operand(users[0], 1)
    scores = _scores_behind(softmax)
    queries = None if scores is None else operand(scores)
    turned = None if scores is None else operand(scores, 1)
    keys = None if turned is None else _before_turn(turned)
    if queries is None or keys is None or values is None:
        return None
    return Attention(queries=queries, keys=keys, values=values, output=users[0], scores=scores)


def _scores_behind(softmax: fx.Node) -> fx.Node | None:
    """The product that a softmax of the last axis is of, scaled and with a mask added or not."""
    rank = len(shape(softmax))
    node = operand(softmax) if axes(softmax, 1, rank) == (rank - 1,) else None
    while node is not None and len(node.users) == 1:
        if node.target in _PRODUCTS:
            return node
        first = operand(node)
        if node.target in ADDS:
            node = first if _leads_to_product(first) else operand(node, 1)
        else:
            node = first if _scaling(node) is not None else None
    return None


def _leads_to_product(node: fx.Node | None) -> bool:
    while node is not None and _scaling(node) is not None:
        node = operand(node)
    return node is not None and node.target in (*_PRODUCTS, *ADDS)


def _scaling(node: fx.Node) -> float | None:
    """The number that a node multiplies its operand by."""
    number = node.args[1] if node.target in _SCALINGS else None
    if not isinstance(number, (int, float)) or node.kwargs:
        return None
    return 1 / number if node.target in (aten.div.Tensor, aten.div.Scalar) else float(number)


def _take_scale(scores: fx.Node) -> float:
    """Remove the scaling of scores; what it was."""
    (reader,) = scores.users
    scale = _scaling(reader)
    if scale is None:
        return 1.0
    reader.replace_all_uses_with(scores)
    reader.graph.erase_node(reader)
    return scale


def _before_turn(node: fx.Node) -> fx.Node | None:
    """The keys, of which the scores take the transpose."""
    if len(node.users) != 1 or node.target not in (aten.transpose.int, aten.permute.default):
        return None
    rank = len(shape(node))
    return operand(node) if turned_axes(node, rank)[-2] == rank - 1 else None


def _layer_before(node: fx.Node) -> fx.Node | None:
    """The linear layer whose outputs, split into heads, a node gives: nobody else reads them."""
    while node.target is not aten.linear.default:
        operands = carried(node)
        source = operands[0] if len(operands) == 1 else _before_split(node)
        if source is None and _scaling(node) is not None:
            source = operand(node)
        if source is None or len(source.users) != 1:
            return None
        node = source
    return node if is_foldable(node) else None


def _before_split(node: fx.Node) -> fx.Node | None:
    """What a node views [..., heads * size] of as [..., heads, size]."""
    source = operand(node)
    if node.target not in _SPLITS or source is None:
        return None
    given, taken = shape(node), shape(source)
    is_split = given[:-2] == taken[:-1] and given[-2] * given[-1] == taken[-1]
    return source if is_split else None


def _layer_after(node: fx.Node) -> fx.Node | None:
    """The linear layer that alone reads a node's heads, put side by side."""
    is_joined = False
    while len(node.users) == 1:
        (reader,) = node.users
        if reader.target is aten.linear.default:
            is_read = is_joined and operand(reader) is node and is_foldable(reader)
            return reader if is_read else None
        joins = not is_joined and _joins_heads(node, reader)
        if not joins and (is_joined or carried(reader) != (node,)):
            return None
        node, is_joined = reader, is_joined or joins
    return None


def _joins_heads(node: fx.Node, reader: fx.Node) -> bool:
    given, taken = shape(reader), shape(node)
    is_view = reader.target in (*_SPLITS, aten.flatten.using_ints)
    return is_view and given[:-1] == taken[:-2] and taken[-2] * taken[-1] == given[-1]


def _blocks(matrix: Tensor, count: int) -> Tensor:
    return torch.kron(torch.eye(count, dtype=matrix.dtype), matrix.contiguous())
