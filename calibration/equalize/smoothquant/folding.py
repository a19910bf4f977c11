"""Folding: scales of what a linear layer reads, divided out of the tensors that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeship.calibration.equalize.program import FloatProgram
from edgeship.calibration.equalize.smoothquant.ways import Share, Walk, numbers_at

if TYPE_CHECKING:
    from torch import Tensor, fx


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Where scales of an activation can be divided out.

    Attributes:
        shares: What is divided.
        channels: How many channels their maker has.
        origin: int64[C], for each channel of the activation the maker's channel that it is of;
            several may be of one, as where heads share a value.
    """

    shares: tuple[Share, ...]
    channels: int
    origin: Tensor

    def divide(self, program: FloatProgram, scale: Tensor) -> None:
        """Edit the tensors: the activation is divided by `scale[origin]`.

        Args:
            program: Edited in place.
            scale: float32[channels], positive.
        """
        for share in self.shares:
            value = program.tensor(share.tensor)
            program.set_tensor(share.tensor, value / scale[share.channel])


def find_fold(program: FloatProgram, source: fx.Node, uses: Mapping[int, int]) -> Fold | None:
    """The fold of an activation, all readers of which take the scales; None if there is none.

    Args:
        program: Not modified.
        source: The activation.
        uses: See `tensor_uses`.
    """
    way = Walk(program, uses).way(source)
    origin = None if way is None else numbers_at(way.numbers, tuple(way.numbers.shape[-1:]))
    if way is None or origin is None:
        return None
    return Fold(shares=way.shares, channels=way.channels, origin=origin)
