"""Streams: the sums that norms read, and what flows into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from edgeship.calibration.equalize.program import is_tensor, module_name
from edgeship.calibration.equalize.rewrite import NothingToRewrite
from edgeship.calibration.equalize.rotate.operators import carried, is_sum, operand

if TYPE_CHECKING:
    from torch import fx

    from edgeship.calibration.equalize.rotate.norms import Norm

aten = torch.ops.aten
MOST_DETOURS: Final = 4
"""Linear layers that a program may need at the ends of its streams: with more of them it is not of
the structure that is meant here, and the more it would cost."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream:
    """Nodes that hold sums of vectors along their last axis, and the norms that read them.

    Attributes:
        members: Sums, and what moves them without touching the last axis.
        sources: What members and norms read that is no member, in order.
        norms: Those that read it.
    """

    width: int
    members: Sequence[fx.Node]
    sources: Sequence[fx.Node]
    norms: Sequence[Norm]

    @property
    def is_centred(self) -> bool:
        """Whether the norms subtract the mean, so that it need not be carried."""
        return self.norms[0].is_centred

    def readers_within(self, node: fx.Node) -> list[fx.Node]:
        """Who reads a member or source as a part of the stream."""
        inner = {item for norm in self.norms if norm.source is node for item in norm.inner}
        return [user for user in node.users if user in self.members or user in inner]

    def readers_beyond(self, node: fx.Node) -> list[fx.Node]:
        """Who else reads it."""
        within = self.readers_within(node)
        return [user for user in node.users if user not in within]


def find_streams(norms: Sequence[Norm]) -> list[Stream]:
    """The streams that the norms read, in order; those that nothing can be folded into are left.

    A norm of each head's queries is such a one.

    Raises:
        NothingToRewrite: One is read by something else as well, or by norms of two kinds.
    """
    streams: list[Stream] = []
    outputs = {norm.output: norm for norm in norms}
    for norm in norms:
        members, sources = _reached(norm.source, outputs)
        own = {*members, *(node for node in sources if norm_behind(node, outputs) is None)}
        joined = [item for item in streams if own & {*item.members, *item.sources}]
        streams = [item for item in streams if item not in joined]
        streams.append(_joined(norm, members, sources, joined))
    kept = [item for item in streams if any(is_foldable(node) for node in item.sources)]
    for stream in kept:
        _check(stream)
    detours = sum(len(_detours(item, outputs)) for item in kept)
    if detours > MOST_DETOURS:
        message = f"{detours} of the terms that its norms read come from no linear layer"
        raise NothingToRewrite(message)
    return kept


def _joined(
    norm: Norm, members: Sequence[fx.Node], sources: Sequence[fx.Node], streams: Sequence[Stream]
) -> Stream:
    """One stream of what a norm reaches and of those that share nodes with it."""
    return Stream(
        width=norm.width,
        members=list(dict.fromkeys([*(n for s in streams for n in s.members), *members])),
        sources=list(dict.fromkeys([*(n for s in streams for n in s.sources), *sources])),
        norms=[*(item for stream in streams for item in stream.norms), norm],
    )


def is_foldable(node: fx.Node) -> bool:
    """Whether a node gives its vectors by parameters: a linear layer, a look-up, a parameter."""
    if node.target is aten.linear.default:
        return all(is_tensor(item) for item in node.args[1:])
    return is_tensor(node) or (node.target is aten.embedding.default and is_tensor(node.args[0]))


def norm_behind(node: fx.Node, outputs: dict[fx.Node, Norm]) -> Norm | None:
    """The norm whose vectors a node hands on, if it adds nothing to them."""
    while node not in outputs:
        operands = carried(node)
        if len(operands) != 1:
            return None
        (node,) = operands
    return outputs[node]


def _reached(start: fx.Node, outputs: dict[fx.Node, Norm]) -> tuple[list[fx.Node], list[fx.Node]]:
    """Members and sources of what a norm reads."""
    members: list[fx.Node] = []
    sources: list[fx.Node] = []
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node in members or node in sources:
            continue
        operands = tuple(_operands(node)) if norm_behind(node, outputs) is None else ()
        (members if operands else sources).append(node)
        waiting += operands
    order = {node: index for index, node in enumerate(start.graph.nodes)}
    return sorted(members, key=order.__getitem__), sorted(sources, key=order.__getitem__)


def _operands(node: fx.Node) -> Iterator[fx.Node]:
    if is_sum(node):
        yield from node.all_input_nodes
    else:
        yield from carried(node)


def _check(stream: Stream) -> None:
    where = module_name(stream.norms[0].output) or str(stream.norms[0].output)
    if len({norm.is_centred for norm in stream.norms}) > 1:
        message = f"what {where} reads is read by norms with a mean and without one"
        raise NothingToRewrite(message)
    for node in stream.members:
        beyond = stream.readers_beyond(node)
        if beyond and stream.is_centred:
            reader = module_name(beyond[0]) or beyond[0].name
            message = f"layer {where}: what it normalizes is read by {reader} as well"
            raise NothingToRewrite(message)
        changed = operand(node) if node.target is aten.add_.Tensor else None
        if changed is not None and len(changed.users) > 1:
            message = f"layer {where}: a sum before it is made in place and read elsewhere"
            raise NothingToRewrite(message)


def _detours(stream: Stream, outputs: dict[fx.Node, Norm]) -> list[fx.Node]:
    """Sources that need a matrix of their own, those behind a norm aside."""
    return [
        node
        for node in stream.sources
        if norm_behind(node, outputs) is None
        and (not is_foldable(node) or stream.readers_beyond(node))
    ]
