"""Finding: one place of a graph that breaks one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    import onnx

    from edgeship.exporters.tensorrt.lints.view import View


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place of a graph that breaks one rule.

    Attributes:
        rule: Name in `RULES`.
        node: Name of the node; of the tensor, or "graph", where no node is to blame.
        module: Dotted name of the torch module that the node comes from; "" for the root.
        what: What is wrong there, in one clause.
        remedy: What to do about it, as an imperative.
        source: What the rule rests on: a table or a parser, read or derived, or advice.
    """

    rule: str
    node: str
    module: str
    what: str
    remedy: str
    source: str

    def __str__(self) -> str:
        """One line: `node (module): what; remedy [rule: source]`."""
        place = f"{self.node} ({self.module})" if self.module else self.node
        return f"{place}: {self.what}; {self.remedy} [{self.rule}: {self.source}]"

    def to_json(self) -> dict[str, str]:
        """The parts by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Breach:
    """What a rule yields: the place by node, or by name where there is none."""

    where: onnx.NodeProto | str
    what: str
    remedy: str


Check: TypeAlias = "Callable[[View, TensorRtFacts], Iterator[Breach]]"
"""Yields the places of a graph that break a rule, in the order of its nodes."""
