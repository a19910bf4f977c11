"""Watching: what nodes of a program give while it runs on samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples

Visit = Callable[[fx.Node, tuple[Any, ...], Tensor], None]
"""Is shown a node, its arguments as they are afterwards, and its value before others work on it."""


def visit_nodes(program: FloatProgram, samples: Samples, nodes: set[fx.Node], visit: Visit) -> None:
    """Run a program on samples, and show each of these nodes each time it has been computed."""
    model = replace(program.model, module=_Watched(program.module, nodes, visit))
    for inputs in samples:
        model.run(inputs)


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
