"""Leading tokens: positions whose vectors are far longer than all others, computed apart.

Encoders give the first token ([CLS]) a part of its own: after the feed-forward of MiniLM's first
layers its variance is 38 to 129, that of the others .5 (measured). Integers with one scale for both
leave the others few steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import is_tensor

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rotate.rms import Rms

aten = torch.ops.aten
RATIO: Final = 2.0
"""How many times as long as all others they must be: one bit of eight."""
_MOST: Final = 4
"""Leading tokens at most."""
_TOKENS: Final = -2
"""The axis of positions."""
_BY_TOKEN: Final = frozenset(
    (
        aten.linear.default,
        aten.gelu.default,
        aten.relu.default,
        aten.silu.default,
        aten.tanh.default,
        aten.sigmoid.default,
        aten.hardswish.default,
        aten.mul.Tensor,
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.rsqrt.default,
        aten.dropout.default,
    )
)
"""Operators that compute each vector of the last axis by itself; a mean does so over that axis."""


@dataclass(frozen=True, kw_only=True)
class Leading:
    """How many first tokens stand out, and how many times as long as all others they are."""

    count: int
    ratio: float


def leading_tokens(values: Tensor) -> Leading | None:
    """First positions longer than all others in each sample, and by `RATIO` over all samples.

    Args:
        values: float32[samples, ..., positions, width].
    """
    lengths = values.square().mean(-1).sqrt()
    lengths = lengths.reshape(-1, lengths.shape[-1])
    for count in range(1, min(_MOST, lengths.shape[1] - 1) + 1):
        first, rest = lengths[:, :count], lengths[:, count:]
        ratio = float(first.amax() / rest.amax().clamp(min=torch.finfo(torch.float32).tiny))
        if ratio > RATIO and (first.amin(1) > rest.amax(1)).all():
            return Leading(count=count, ratio=ratio)
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """What computes a norm from another one's output alone, token by token.

    Attributes:
        start: That output.
        nodes: In order, the norm's own last.
    """

    start: fx.Node
    nodes: Sequence[fx.Node]


def part_between(norm: Rms, outputs: Set[fx.Node]) -> Part | None:
    """The part that ends with a norm; None where other values than one of `outputs` enter."""
    part: set[fx.Node] = set()
    starts: set[fx.Node] = set()
    waiting = [norm.output]
    while waiting:
        node = waiting.pop()
        if node in part or node in starts:
            continue
        if node in outputs and node is not norm.output:
            starts.add(node)
        elif _is_by_token(node):
            part.add(node)
            waiting += [item for item in node.all_input_nodes if not is_tensor(item)]
        else:
            return None
    is_closed = all(user in part for node in part - {norm.output} for user in node.users)
    if len(starts) != 1 or not is_closed:
        return None
    (start,) = starts
    return Part(start=start, nodes=[node for node in start.graph.nodes if node in part])


def split_part(program: FloatProgram, part: Part, count: int) -> fx.Node:
    """Compute the first `count` tokens and the others apart, by the same parameters; the whole."""
    last = part.nodes[-1]
    place = last.next
    ends = [
        _copy_for_tokens(program, part, first, stop, place)
        for first, stop in ((0, count), (count, sys.maxsize))
    ]
    whole = program.insert(aten.cat.default, (ends, _TOKENS), before=place, like=last)
    last.replace_all_uses_with(whole)
    for node in reversed(part.nodes):
        program.graph.erase_node(node)
    return whole


def _copy_for_tokens(
    program: FloatProgram, part: Part, first: int, stop: int, place: fx.Node
) -> fx.Node:
    arguments = (part.start, _TOKENS, first, stop)
    tokens = program.insert(aten.slice.Tensor, arguments, before=place, like=part.nodes[0])
    copies = {part.start: tokens}
    with program.graph.inserting_before(place):
        for node in part.nodes:
            copies[node] = program.graph.node_copy(node, lambda item: copies.get(item, item))
    return copies[part.nodes[-1]]


def _is_by_token(node: fx.Node) -> bool:
    if node.target is aten.mean.dim:
        return node.args[1:] == ([-1], True)
    if node.target not in _BY_TOKEN:
        return False
    others = [item for item in node.all_input_nodes if is_tensor(item)]
    return node.target is aten.linear.default or all(item.meta["val"].dim() <= 1 for item in others)
