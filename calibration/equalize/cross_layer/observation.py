"""Observation: what channels hold while a program runs on samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.watching import visit_nodes

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Least and largest value, and mean of squares, of each channel: float64[C]."""

    low: Tensor
    high: Tensor
    power: Tensor

    @property
    def peaks(self) -> Tensor:
        """Largest magnitude of each channel."""
        return torch.maximum(-self.low, self.high).clamp(min=0.0)


def observe_channels(
    program: FloatProgram, samples: Samples, axes: Mapping[fx.Node, tuple[int, int]]
) -> dict[fx.Node, Channels]:
    """Channels of these nodes over all samples.

    Args:
        program: Not modified.
        samples: At least one.
        axes: By node, its channels' axis, and how many entries next to each other are of one.
    """
    seen: dict[fx.Node, list[Tensor]] = {node: [] for node in axes}

    def visit(node: fx.Node, _: tuple[Any, ...], value: Tensor) -> None:
        axis, repeat = axes[node]
        rows = value.detach().movedim(axis, 0).reshape(value.shape[axis] // repeat, -1).double()
        seen[node].append(torch.stack((rows.amin(1), rows.amax(1), rows.square().mean(1))))

    visit_nodes(program, samples, set(axes), visit)
    return {node: _joined(found) for node, found in seen.items()}


def _joined(found: Sequence[Tensor]) -> Channels:
    low, high, power = torch.stack(tuple(found)).unbind(1)
    return Channels(low=low.amin(0), high=high.amax(0), power=power.mean(0))
