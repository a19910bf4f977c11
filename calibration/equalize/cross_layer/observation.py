"""Observation: what channels hold while a program runs on samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples

Visit = Callable[[fx.Node, tuple[Any, ...], Tensor], None]
"""Is shown a node, its arguments as they are afterwards, and its value before others work on it."""


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


def visit_nodes(program: FloatProgram, samples: Samples, nodes: set[fx.Node], visit: Visit) -> None:
    """Run a program on samples, and show each of these nodes each time it has been computed."""
    model = replace(program.model, module=_Watched(program.module, nodes, visit))
    for inputs in samples:
        model.run(inputs)


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


class _Watched(nn.Module):
    def __init__(self, module: fx.GraphModule, nodes: set[fx.Node], visit: Visit) -> None:
        super().__init__()
        self._interpreter = _Interpreter(module, nodes, visit)

    def forward(self, *inputs: Tensor) -> object:
        """What the module gives."""
        return self._interpreter.run(*inputs)


class _Interpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, nodes: set[fx.Node], visit: Visit) -> None:
        super().__init__(module)
        self._nodes = nodes
        self._visit = visit

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as its base class
        """The node's value, shown before the next node runs."""
        value = super().run_node(n)
        if n in self._nodes:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            self._visit(n, tuple(arguments), value)
        return value
