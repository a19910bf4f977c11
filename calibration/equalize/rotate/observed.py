"""Observed: what nodes of a program hold on samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

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
    watch = _Watch(program.module, wanted)
    for inputs in samples:
        arguments = [torch.tensor(inputs[spec.name]) for spec in program.model.contract.inputs]
        with torch.no_grad():
            for node, value in watch.watched(arguments):
                seen[node].append(value)
    return {node: torch.stack(values) for node, values in seen.items()}


class _Watch(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, wanted: frozenset[fx.Node]) -> None:
        super().__init__(module)
        self._wanted = wanted
        self._values: dict[fx.Node, Tensor] = {}

    def watched(self, arguments: list[Tensor]) -> Iterator[tuple[fx.Node, Tensor]]:
        self._values = {}
        self.run(*arguments)
        yield from self._values.items()

    def run_node(self, node: fx.Node) -> object:
        value: object = super().run_node(node)
        if node in self._wanted and isinstance(value, Tensor):
            self._values[node] = value.detach().clone()
        return value
