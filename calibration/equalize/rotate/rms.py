"""RMS: a norm without a mean, a gain or a shift, in the operators that integers have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import fx

    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rotate.norms import Norm

aten = torch.ops.aten


@dataclass(frozen=True, eq=False, kw_only=True)
class Rms:
    """x * rsqrt(mean(x * x) + epsilon), written out.

    Attributes:
        nodes: In order: square, mean, sum with epsilon, root, product.
    """

    nodes: tuple[fx.Node, ...]
    epsilon: float

    @property
    def source(self) -> fx.Node:
        """What is normalized."""
        source: fx.Node = self.nodes[0].args[0]  # type: ignore[assignment]  # by its operator
        return source

    @property
    def output(self) -> fx.Node:
        """The result."""
        return self.nodes[-1]


def write_rms(program: FloatProgram, norm: Norm) -> Rms:
    """Put an RMS in place of a norm: of what it reads, whose mean is 0 where it subtracts one."""
    first = next(node for node in program.graph.nodes if node in norm.inner)
    source = norm.source
    nodes = rms_nodes(program, source, norm.epsilon, before=first, like=norm.output)
    norm.output.replace_all_uses_with(nodes[-1])
    for node in reversed(norm.inner):
        program.graph.erase_node(node)
    return Rms(nodes=nodes, epsilon=norm.epsilon)


def write_first_pass(program: FloatProgram, rms: Rms, constant: float) -> None:
    """Normalize once before, with `constant` in place of epsilon; the result is the same.

    With v the mean square of x, the first pass leaves w = v / (v + constant). What the second one
    adds makes that up: rsqrt(w + epsilon / constant) is rsqrt((v + epsilon) / (v + constant)) but
    for a share of epsilon / constant.
    """
    square, _, total, _, product = rms.nodes
    nodes = rms_nodes(program, rms.source, constant, before=square, like=square)
    once = nodes[-1]
    source = rms.source
    square.args = (once, once)
    product.args = tuple(once if item is source else item for item in product.args)
    total.args = (total.args[0], rms.epsilon / constant)


def rms_nodes(
    program: FloatProgram, source: fx.Node, epsilon: float, *, before: fx.Node, like: fx.Node
) -> tuple[fx.Node, ...]:
    """The nodes of `Rms`, before another one."""
    square = program.insert(aten.mul.Tensor, (source, source), before=before, like=like)
    mean = program.insert(aten.mean.dim, (square, [-1], True), before=before, like=like)
    total = program.insert(aten.add.Tensor, (mean, epsilon), before=before, like=like)
    root = program.insert(aten.rsqrt.default, (total,), before=before, like=like)
    product = program.insert(aten.mul.Tensor, (source, root), before=before, like=like)
    return square, mean, total, root, product
