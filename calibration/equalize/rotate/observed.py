"""Observed: what nodes of a program hold on samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.watching import visit_nodes

if TYPE_CHECKING:
    import numpy as np

    from edgeship.calibration.equalize.program import FloatProgram


def observe(
    program: FloatProgram,
    samples: Iterable[Mapping[str, np.ndarray]],
    nodes: Iterable[fx.Node],
) -> dict[fx.Node, Tensor]:
    """float32[samples, ...] of each node."""
    wanted = frozenset(nodes)
    program.graph.lint()
    program.module.recompile()
    seen: dict[fx.Node, list[Tensor]] = {node: [] for node in wanted}

    def visit(node: fx.Node, _: tuple[Any, ...], value: Tensor) -> None:
        seen[node].append(value.detach().clone())

    visit_nodes(program, tuple(samples), set(wanted), visit)
    return {node: torch.stack(values) for node, values in seen.items()}
