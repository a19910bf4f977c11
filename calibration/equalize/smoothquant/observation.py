"""Observation: what activations of a program hold on samples, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.program import FloatProgram
from edgeship.calibration.equalize.watching import visit_nodes

if TYPE_CHECKING:
    import numpy as np

ROWS: Final = 256
"""Kept of an activation, of all samples together. 512 chose no better for MiniLM (measured)."""
_FLOATS: Final = 2**26
"""Kept of all activations, 256 MB: fewer rows of each where there are many or wide ones."""
_FEWEST_ROWS: Final = 32
_LOUDEST: Final = 4
"""One in so many of the kept rows is among the sample's largest: one token of 128, the first, has
nearly all the power of MiniLM's feed-forward outputs, and must not be there by chance."""
_SEED: Final = 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One activation.

    Rows of padding are among them: the ranges of the artifact are taken with padding, too.

    Attributes:
        low: float32[N, C], the least value of each channel in all rows of each sample.
        high: float32[N, C], the largest.
        rows: float32[R, C], some rows of each sample.
        counts: float32[R], how many rows of its sample each stands for.
    """

    low: Tensor
    high: Tensor
    rows: Tensor
    counts: Tensor

    @property
    def reach(self) -> Tensor:
        """float32[N, C], the largest magnitude of each channel in each sample."""
        return torch.maximum(self.low.abs(), self.high.abs())


def observe_nodes(
    program: FloatProgram,
    nodes: Sequence[fx.Node],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> dict[fx.Node, Seen]:
    """Run the samples, one at a time, and keep what `nodes` give: float32[..., C] each.

    Which rows are kept is random but the same each time. Values that are not finite are taken as
    0: they have no place in a range.
    """
    channels = sum(int(node.meta["val"].shape[-1]) for node in nodes)
    rows = max(_FEWEST_ROWS, min(ROWS, _FLOATS // max(channels, 1)))
    sampler = _Sampler(-(-rows // max(len(samples), 1)))
    parts: dict[fx.Node, list[Seen]] = {node: [] for node in nodes}

    def visit(node: fx.Node, _: tuple[Any, ...], value: Tensor) -> None:
        found = value.detach().reshape(-1, value.shape[-1]).nan_to_num(0.0, 0.0, 0.0)
        parts[node].append(sampler.seen(found))

    visit_nodes(program, samples, set(parts), visit)
    return {node: _joined(found) for node, found in parts.items()}


class _Sampler:
    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._generator = torch.Generator().manual_seed(_SEED)

    def seen(self, rows: Tensor) -> Seen:
        """Of one sample."""
        order = rows.abs().amax(1).argsort(descending=True, stable=True)
        count = max(self._rows // _LOUDEST, 1)
        loudest, others = order[:count], order[count:]
        drawn = others[torch.randperm(len(others), generator=self._generator)]
        drawn = drawn[: max(self._rows - count, 1)]
        each = len(others) / max(len(drawn), 1)
        return Seen(
            low=rows.amin(0, keepdim=True),
            high=rows.amax(0, keepdim=True),
            rows=rows[torch.cat((loudest, drawn))],
            counts=torch.cat((torch.ones(len(loudest)), torch.full((len(drawn),), each))),
        )


def _joined(parts: Sequence[Seen]) -> Seen:
    return Seen(
        low=torch.cat([part.low for part in parts]),
        high=torch.cat([part.high for part in parts]),
        rows=torch.cat([part.rows for part in parts]),
        counts=torch.cat([part.counts for part in parts]),
    )
