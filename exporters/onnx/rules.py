"""Rules: which precisions a recipe may name, and which nodes its rules keep in float."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem, closest_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from edgeship.exporters.protocol import Recipe

_MADE: Final = ("fp32", "fp16", "int8", "dynamic")


def recipe_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    """A file has one precision and fp32: its kernels take no other beside them."""
    for precision in sorted({recipe.precision, *(rule.precision for rule in recipe.rules)}):
        if precision not in _MADE:
            yield Problem(
                where=where,
                what=f"precision {precision!r} cannot be made in this version",
                expected=", ".join(_MADE),
                remedy="choose one of these",
            )
    for rule in recipe.rules:
        if rule.precision in _MADE and rule.precision not in ("fp32", recipe.precision):
            yield Problem(
                where=f"{where}.rules",
                what=f"a file in {recipe.precision} cannot hold layers in {rule.precision}",
                expected=" or ".join(dict.fromkeys((recipe.precision, "fp32"))),
                found=f"{rule.match} -> {rule.precision}",
                remedy=f'make precisions = ["{rule.precision}"] and keep the other layers in fp32',
            )


def kept_nodes(proto: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Names of the nodes that the recipe's rules keep in fp32.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    from edgeship.source.graph import module_of_node

    modules = {node.name: module_of_node(node) for node in proto.graph.node}
    precision = dict.fromkeys(modules, recipe.precision)
    for rule in recipe.rules:
        matched = [node for node, module in modules.items() if fnmatchcase(module, rule.match)]
        if not matched:
            raise ConfigurationError(_unmatched(rule.match, sorted({*modules.values()} - {""})))
        precision.update(dict.fromkeys(matched, rule.precision))
    return [node for node, chosen in precision.items() if chosen == "fp32"]


def _unmatched(match: str, modules: list[str]) -> Problem:
    close = closest_names(match, modules)
    return Problem(
        where=f"edgeship.toml: rule {match!r}",
        what="the rule matches no module",
        expected=f"one like {', '.join((close or modules)[:5])}",
        remedy="correct the glob, or remove the rule",
    )
