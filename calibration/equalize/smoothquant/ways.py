"""Ways: from an activation back to the tensors that made each of its channels.

A scale for each channel passes through operators that move values, that are linear in what they
are given, or that only cut at zero. Where each channel comes from is not reasoned about but tried:
the numbers of the channels take the way of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import FloatProgram, is_tensor

_ATEN: Final = torch.ops.aten
_MOVERS: Final = frozenset(
    {
        _ATEN.clone.default,
        _ATEN.contiguous.default,
        _ATEN.expand.default,
        _ATEN.flatten.using_ints,
        _ATEN.permute.default,
        _ATEN.repeat.default,
        _ATEN.reshape.default,
        _ATEN.select.int,
        _ATEN.slice.Tensor,
        _ATEN.squeeze.default,
        _ATEN.squeeze.dim,
        _ATEN.transpose.int,
        _ATEN.unsqueeze.default,
        _ATEN.view.default,
    }
)
_SAME: Final = frozenset({_ATEN.dropout.default, _ATEN.relu.default, _ATEN.relu_.default})
"""Operators f with f(s x) = s f(x) for each s > 0, value by value."""
_WITH_OPTIONS: Final = frozenset({_ATEN.clone.default, _ATEN.scaled_dot_product_attention.default})
"""Those whose keywords change nothing of this: a memory format, a factor before the softmax."""
_FACTORS: Final = frozenset({_ATEN.mul.Tensor, _ATEN.div.Tensor})
_NORMS: Final[Mapping[object, tuple[int, ...]]] = {
    _ATEN.layer_norm.default: (2, 3),
    _ATEN.rms_norm.default: (2,),
}
"""Positions of the tensors that multiply the result and are added to it."""
_MATRICES: Final[Mapping[object, tuple[int, int | None, int]]] = {
    _ATEN.linear.default: (1, 2, 0),
    _ATEN.addmm.default: (2, 0, 1),
    _ATEN.matmul.default: (1, None, 1),
    _ATEN.mm.default: (1, None, 1),
}
"""Position of the matrix, of the bias, and the matrix's axis of output channels."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A tensor that takes a part of the scales.

    Attributes:
        tensor: Its get_attr node.
        channel: int64, for each value the channel of the maker; of a shape that broadcasts.
    """

    tensor: fx.Node
    channel: Tensor


_Places = Sequence[tuple[int, tuple[int, ...]]]
"""Positions of tensors in a node's arguments, and the form in which they number their channels."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """What was found on the way back from a node.

    Attributes:
        shares: What takes the scales.
        channels: Of the maker: a linear layer, a convolution, a norm or a constant factor.
        numbers: int64, for each value of the node the maker's channel that it is of.
    """

    shares: tuple[Share, ...]
    channels: int
    numbers: Tensor


class Walk:
    """From an activation back to what made it."""

    def __init__(self, program: FloatProgram, uses: Mapping[int, int]) -> None:
        self._program = program
        self._uses = uses

    def way(self, node: fx.Node) -> Way | None:
        """The way to a node from its maker; the node itself may be it."""
        if node.op != "call_function" or (node.kwargs and node.target not in _WITH_OPTIONS):
            return None
        if node.target in _MATRICES:
            return self._from_matrix(node)
        if node.target is _ATEN.conv2d.default:
            return self._made(node, ((1, (-1, 1, 1, 1)), (2, (-1,))), (-1, 1, 1))
        if node.target in _NORMS:
            positions = [(place, (-1,)) for place in _NORMS[node.target]]
            return self._made(node, positions, (-1,)) if len(_list(node.args[1])) == 1 else None
        return self._through(node)

    def _from_matrix(self, node: fx.Node) -> Way | None:
        matrix, bias, axis = _MATRICES[node.target]
        if len(node.args) > matrix and is_tensor(node.args[matrix]):
            form = (-1, 1) if axis == 0 else (1, -1)
            biases = () if bias is None else ((bias, (-1,)),)
            return self._made(node, ((matrix, form), *biases), (-1,))
        if node.target is _ATEN.matmul.default:
            return self._weighted(node, node.args[1])
        return None

    def _made(self, node: fx.Node, places: _Places, shape: tuple[int, ...]) -> Way | None:
        """The maker: the first of its tensors has to be there, the others may be absent."""
        shares = []
        for order, (place, form) in enumerate(places):
            tensor = node.args[place] if place < len(node.args) else None
            if tensor is None and order:
                continue
            if not is_tensor(tensor) or not self._is_own(tensor):
                return None
            value = self._program.tensor(tensor)
            if value.ndim != len(form):
                return None
            count = value.shape[form.index(-1)]
            shares.append(Share(tensor=tensor, channel=torch.arange(count).view(form)))
        count = shares[0].channel.numel()
        numbers = torch.arange(count).view(shape).expand(_shape(node))
        return Way(shares=tuple(shares), channels=count, numbers=numbers)

    def _through(self, node: fx.Node) -> Way | None:
        first = node.args[0] if node.args else None
        if node.target in _MOVERS or node.target in _SAME:
            step: Callable[..., Tensor] = node.target if node.target in _MOVERS else _unchanged
            return self._step(node, first, lambda numbers: step(numbers, *node.args[1:]))
        if node.target is _ATEN.to.dtype and _dtype(first) is _dtype(node) is torch.float32:
            return self._step(node, first, _unchanged)
        if node.target is _ATEN.scaled_dot_product_attention.default:
            return self._weighted(node, node.args[2])
        if node.target in _FACTORS:
            return self._multiplied(node)
        if node.target is _ATEN.add.Tensor:
            return self._shifted(node)
        return None

    def _multiplied(self, node: fx.Node) -> Way | None:
        """A constant vector takes the scales, or one of two factors brings them along."""
        one, other = node.args[:2]
        is_product = node.target is _ATEN.mul.Tensor
        if is_product and (is_tensor(one) or is_tensor(other)):
            return self._scaled(node, one if is_tensor(one) else other)
        for factor in (one, other) if is_product else (one,):
            found = self._step(node, factor, lambda numbers: numbers.expand(_shape(node)))
            if found is not None:
                return found
        return None

    def _scaled(self, node: fx.Node, tensor: object) -> Way | None:
        if not is_tensor(tensor) or not self._is_own(tensor):
            return None
        value = self._program.tensor(tensor)
        if value.ndim == 0 or value.numel() != value.shape[-1]:
            return None
        channel = torch.arange(value.numel()).view(value.shape)
        share = Share(tensor=tensor, channel=channel)
        numbers = channel.expand(_shape(node))
        return Way(shares=(share,), channels=value.numel(), numbers=numbers)

    def _shifted(self, node: fx.Node) -> Way | None:
        """A sum with a constant: both are divided."""
        one, other = node.args[:2]
        tensor, value = (one, other) if is_tensor(one) else (other, one)
        if not is_tensor(tensor) or not self._is_own(tensor):
            return None
        found = self._step(node, value, lambda numbers: numbers.expand(_shape(node)))
        if found is None:
            return None
        channel = numbers_at(found.numbers, tuple(self._program.tensor(tensor).shape))
        if channel is None:
            return None
        return replace(found, shares=(*found.shares, Share(tensor=tensor, channel=channel)))

    def _weighted(self, node: fx.Node, values: object) -> Way | None:
        """Sums of weighted rows: a channel stays one if all rows have it in the same place."""

        def spread(numbers: Tensor) -> Tensor | None:
            rows = numbers_at(numbers, (*numbers.shape[:-2], 1, numbers.shape[-1]))
            return None if rows is None else _expanded(rows, _shape(node))

        if len(_shape(values)) < 2:
            return None
        return self._step(node, values, spread)

    def _step(
        self, node: fx.Node, source: object, move: Callable[[Tensor], Tensor | None]
    ) -> Way | None:
        """The way to `source`, which goes to `node` alone and once, and what it becomes there."""
        if not isinstance(source, fx.Node) or set(source.users) != {node}:
            return None
        if sum(argument is source for argument in node.args) != 1:
            return None
        found = self.way(source)
        moved = None if found is None else move(found.numbers.contiguous())
        return None if found is None or moved is None else replace(found, numbers=moved)

    def _is_own(self, tensor: fx.Node) -> bool:
        value = self._program.tensor(tensor)
        return value.dtype == torch.float32 and self._uses[value.data_ptr()] == 1


def numbers_at(numbers: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The numbers of a tensor of this shape that broadcasts to theirs; None where they differ."""
    padded = (1,) * (numbers.ndim - len(shape)) + shape
    for axis, size in enumerate(padded):
        if size == 1:
            first = numbers.narrow(axis, 0, 1)
            if not torch.equal(first.expand_as(numbers), numbers):
                return None
            numbers = first
    return numbers.reshape(shape)


def _expanded(numbers: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    try:
        return numbers.expand(shape)
    except RuntimeError:  # heads in groups: attention repeats values itself
        return None


def _unchanged(numbers: Tensor, *_: object) -> Tensor:
    return numbers


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _dtype(node: object) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, Tensor) else None
