"""Rules: which precisions of a recipe become ONNX, and which nodes its rules keep in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.rules import kept_in_float, precision_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from edgeship.errors import Problem
    from edgeship.exporters.protocol import Recipe

_MADE: Final = ("fp32", "fp16", "int8", "dynamic")


def recipe_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    """What of the recipe cannot be made; see `precision_problems`."""
    yield from precision_problems(recipe, where, _MADE)


def kept_nodes(proto: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Names of the nodes that the recipe's rules keep in fp32.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    from edgeship.source.graph import module_of_node

    return kept_in_float({node.name: module_of_node(node) for node in proto.graph.node}, recipe)
