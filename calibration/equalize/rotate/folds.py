"""Folds: streams in a basis of their own, each matrix multiplied into the layers at their ends.

A norm gives gain * n + shift of a stream x with n = c(x) / |c(x)| * sqrt(width), c the centring.
With Q orthogonal the stream carries Q @ c @ x, its norm gives u = Q @ n, and what read the norm
takes u with gain * Q.T behind it (QuaRot, arXiv:2404.00456, section 4, where a norm has no mean and
feeds no sum; SliceGPT, arXiv:2401.15024, section 3.2, for the mean).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import module_name
from edgeship.calibration.equalize.rotate.hadamard import orthogonal
from edgeship.calibration.equalize.rotate.pooling import pooled_mean
from edgeship.calibration.equalize.rotate.streams import Stream, is_foldable, norm_behind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rotate.norms import Norm
    from edgeship.calibration.equalize.rotate.weights import Weights

aten = torch.ops.aten


@dataclass(frozen=True, eq=False, kw_only=True)
class Basis:
    """Of a stream: Q and the matrix Q @ c that its sources are multiplied by."""

    turn: Tensor
    entry: Tensor


def make_basis(stream: Stream, seed: int) -> Basis:
    """One by a seed."""
    turn = orthogonal(stream.width, seed)
    entry = turn - turn.mean(1, keepdim=True) if stream.is_centred else turn
    return Basis(turn=turn, entry=entry)


class Folds:
    """What is multiplied into a program's layers, and the layers that are put between.

    Attributes:
        made: The latter.
        left: What those of them take that turn back for another reader than a linear layer.
    """

    def __init__(
        self, program: FloatProgram, weights: Weights, bases: Mapping[Stream, Basis]
    ) -> None:
        self._program = program
        self._weights = weights
        self._bases = bases
        self._stream_of = {norm: stream for stream in bases for norm in stream.norms}
        self._norms = {norm.output: norm for norm in self._stream_of}
        self.made: set[fx.Node] = set()
        self.left: list[fx.Node] = []

    def fold(self, stream: Stream) -> None:
        """Change all that flows into a stream, and all that reads it or its norms."""
        basis = self._bases[stream]
        for source in stream.sources:
            self._turn_source(stream, source, basis)
        for node in stream.members:
            beyond = stream.readers_beyond(node)
            if beyond:  # only where nothing was lost: the norms are not centred
                self._put_between(node, beyond, basis.turn.T, None)

    def fold_readers(self, norm: Norm) -> None:
        """Give each reader of a norm, other than streams, what it read before."""
        matrix, shift = self._exit(norm)
        waiting = [norm.output]
        while waiting:
            node = waiting.pop()
            others = []
            for user in list(node.users):
                if user in self.made or self._is_within(node, user):
                    continue
                if (
                    user.target is aten.linear.default
                    and is_foldable(user)
                    and user.args[0] is node
                ):
                    self._weights.turn_input(user, matrix, shift)
                elif norm_behind(user, self._norms) is norm:
                    waiting.append(user)
                else:
                    others.append(user)
            if others:
                self._leave(node, others, matrix, shift)

    def _turn_source(self, stream: Stream, source: fx.Node, basis: Basis) -> None:
        weights = self._weights
        norm = norm_behind(source, self._norms)
        if norm is not None:
            matrix, shift = self._exit(norm)
            moved = None if shift is None else basis.entry @ shift
            self._put_between(source, stream.readers_within(source), basis.entry @ matrix, moved)
        elif self.is_detour(stream, source):
            self._put_between(source, stream.readers_within(source), basis.entry, None)
        elif source.target is aten.linear.default:
            weights.turn_output(source, basis.entry)
        else:
            table = source if source.op == "get_attr" else source.args[0]
            assert isinstance(table, fx.Node)
            weights.set_value(table, weights.value(table) @ basis.entry.T)

    def is_detour(self, stream: Stream, source: fx.Node) -> bool:
        """Whether a source that is no norm needs a matrix of its own."""
        if not is_foldable(source) or stream.readers_beyond(source):
            return True
        return self._weights.is_shared(source)

    def _exit(self, norm: Norm) -> tuple[Tensor, Tensor | None]:
        """Matrix and shift from u to what the norm gave."""
        turn = self._bases[self._stream_of[norm]].turn
        gain = None if norm.gain is None else self._weights.value(norm.gain)
        shift = None if norm.shift is None else self._weights.value(norm.shift)
        return (turn.T if gain is None else gain[:, None] * turn.T), shift

    def _is_within(self, node: fx.Node, user: fx.Node) -> bool:
        return any(
            node in stream.sources and user in stream.readers_within(node) for stream in self._bases
        )

    def _leave(
        self, node: fx.Node, readers: list[fx.Node], matrix: Tensor, shift: Tensor | None
    ) -> None:
        mean = pooled_mean(node)
        if mean is not None:
            node, readers = mean, list(mean.users)
        self.left.append(node)
        self._put_between(node, readers, matrix, shift)

    def _put_between(
        self, node: fx.Node, readers: list[fx.Node], matrix: Tensor, shift: Tensor | None
    ) -> None:
        """A linear layer that these readers take in place of `node`."""
        program = self._program
        following = node.next
        place = ".".join(filter(None, (module_name(node), "turn")))
        weight = program.add_tensor(f"{place}.weight", matrix.float(), following)
        arguments: tuple[fx.Node, ...] = (node, weight)
        if shift is not None and shift.any():
            arguments += (program.add_tensor(f"{place}.bias", shift.float(), following),)
        layer = program.insert(aten.linear.default, arguments, before=following, like=node)
        for reader in readers:
            reader.replace_input_with(node, layer)
        self.made.add(layer)
