"""Rules: which precisions a recipe may name, and what its rules keep in fp32, for every format."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem, closest_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeship.exporters.protocol import Recipe

_KEPT: Final = "fp32"


def precision_problems(recipe: Recipe, where: str, made: Sequence[str]) -> Iterator[Problem]:
    """A file has one precision of `made`, and fp32: kernels take no other beside them."""
    for precision in sorted({recipe.precision, *(rule.precision for rule in recipe.rules)}):
        if precision not in made:
            yield Problem(
                where=where,
                what=f"precision {precision!r} cannot be made in this version",
                expected=", ".join(made),
                remedy="choose one of these",
            )
    for rule in recipe.rules:
        if rule.precision in made and rule.precision not in (_KEPT, recipe.precision):
            yield Problem(
                where=f"{where}.rules",
                what=f"a file in {recipe.precision} cannot hold layers in {rule.precision}",
                expected=" or ".join(dict.fromkeys((recipe.precision, _KEPT))),
                found=f"{rule.match} -> {rule.precision}",
                remedy=f'make precisions = ["{rule.precision}"] and keep the other layers in fp32',
            )


def kept_in_float(modules: Mapping[str, str], recipe: Recipe) -> list[str]:
    """The operators that the recipe's rules keep in fp32, in the order of `modules`.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    found = precision_by_rules(modules, recipe)
    return [name for name, precision in found.items() if precision == _KEPT]


def precision_by_rules(modules: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
    """The precision of each operator, in the order of `modules`.

    Args:
        modules: By operator, in any naming, the dotted path of its torch module. A rule's glob
            matches what is in such a module at any depth: `layer3` finds `layer3.0.conv1`.
        recipe: Of a later rule and an earlier one, the later one counts.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    precisions = dict.fromkeys(modules, recipe.precision)
    for rule in recipe.rules:
        matched = [name for name, module in modules.items() if _is_inside(module, rule.match)]
        if not matched:
            raise ConfigurationError(_unmatched(rule.match, sorted({*modules.values()} - {""})))
        precisions.update(dict.fromkeys(matched, rule.precision))
    return precisions


def _is_inside(module: str, match: str) -> bool:
    """Whether the glob matches the module, or one that it is in."""
    parts = module.split(".")
    return any(fnmatchcase(".".join(parts[: end + 1]), match) for end in range(len(parts)))


def _unmatched(match: str, modules: list[str]) -> Problem:
    close = closest_names(match, modules)
    return Problem(
        where=f"edgeship.toml: rule {match!r}",
        what="the rule matches no module",
        expected=f"one like {', '.join((close or modules)[:5])}" if modules else "no rule",
        remedy="correct the glob, or remove the rule",
    )
