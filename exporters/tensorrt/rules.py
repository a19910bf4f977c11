"""Rules: what a kit's recipe may say of single layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.errors import Problem
from edgeship.exporters.rules import precision_by_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from edgeship.exporters.protocol import Recipe
    from edgeship.targets.tensorrt_facts import TensorRtFacts

PRECISION: Final = "kit"
"""The one precision: a kit holds a graph for each that the GPU computes in."""
_RULED: Final = ("fp16", "fp32", "int8")


@dataclass(frozen=True, kw_only=True)
class RuledNodes:
    """Names of nodes by what the recipe's rules make of them.

    Attributes:
        kept: Not quantized: fp16 or fp32.
        full: Of them those in fp32.
        forced: int8, though their size may speak against it.
    """

    kept: frozenset[str]
    full: frozenset[str]
    forced: frozenset[str]


def recipe_problems(recipe: Recipe, facts: TensorRtFacts, where: str) -> Iterator[Problem]:
    """What of the recipe cannot be made for this GPU."""
    if recipe.precision != PRECISION:
        yield Problem(
            where=where,
            what=f"precision {recipe.precision!r} cannot be made for TensorRT",
            expected=PRECISION,
            remedy=f'make precisions = ["{PRECISION}"]: it holds a graph for each precision of'
            " the GPU",
        )
    for rule in recipe.rules:
        found = f"{rule.match} -> {rule.precision}"
        if rule.precision not in _RULED:
            yield Problem(
                where=f"{where}.rules",
                what=f"a kit cannot hold layers in {rule.precision}",
                expected=" or ".join(_RULED),
                found=found,
                remedy="choose one of these",
            )
        elif rule.precision == "int8" and not facts.has_int8:
            yield Problem(
                where=f"{where}.rules",
                what=f"no layer can be in int8: {facts.int8_reason}",
                expected="fp16 or fp32",
                found=found,
                remedy="remove the rule",
            )


def ruled_nodes(proto: onnx.ModelProto, recipe: Recipe) -> RuledNodes:
    """What the rules say of each node of a Graph.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    from edgeship.source.graph import module_of_node

    modules = {node.name: module_of_node(node) for node in proto.graph.node}
    precisions = precision_by_rules(modules, recipe)

    def named(*wanted: str) -> frozenset[str]:
        return frozenset(name for name, precision in precisions.items() if precision in wanted)

    return RuledNodes(kept=named("fp16", "fp32"), full=named("fp32"), forced=named("int8"))
