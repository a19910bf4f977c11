"""Rules: which precisions a recipe may name, and which operators its rules keep in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.rules import kept_in_float, precision_problems
from edgeship.exporters.tflite.naming import modules_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeship.errors import Problem
    from edgeship.exporters.protocol import Recipe
    from edgeship.exporters.tflite.flatbuffer import ModelT

_MADE: Final = ("fp32", "fp16", "int8", "dynamic")


def recipe_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    """A file has one precision and fp32."""
    return precision_problems(recipe, where, _MADE)


def kept_operators(tables: ModelT, recipe: Recipe) -> list[str]:
    """Names of the tensors whose operators the recipe's rules keep in fp32.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    return kept_in_float(modules_of(tables), recipe)
