from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.protocol import Recipe
from edgeship.exporters.tflite.rules import kept_operators, recipe_problems
from edgeship.project import Rule

Make = Callable[..., Any]
MAP = ("FLOAT32", (1, 4, 4, 2))


@pytest.fixture
def tables(handmade: Make) -> Any:  # noqa: ANN401 - the vendor has no types
    return handmade(
        {
            "image": MAP,
            "block.conv/weight": np.zeros((2, 1, 1, 2), np.float32),
            "block.conv/bias": np.zeros(2, np.float32),
            "block.conv/conv_2d": MAP,
            "block/add": MAP,
            "/relu": MAP,
        },
        [
            (
                "CONV_2D",
                ("image", "block.conv/weight", "block.conv/bias"),
                "block.conv/conv_2d",
                {},
            ),
            ("ADD", ("block.conv/conv_2d", "image"), "block/add", {}),
            ("RELU", ("block/add",), "/relu", {}),
        ],
        ["image"],
        ["/relu"],
    )


@pytest.mark.parametrize(
    ("match", "kept"),
    [
        ("block", ["block.conv/conv_2d", "block/add"]),
        ("block.*", ["block.conv/conv_2d"]),
        ("*", ["block.conv/conv_2d", "block/add", "/relu"]),
    ],
)
def test_a_rule_names_the_tensors_of_its_operators(
    tables: object, match: str, kept: list[str]
) -> None:
    recipe = Recipe(precision="int8", rules=(Rule(match=match, precision="fp32"),))
    assert kept_operators(tables, recipe) == kept


def test_constants_are_no_operators(tables: object) -> None:
    rules = (Rule(match="block.conv.weight", precision="fp32"),)
    with pytest.raises(ConfigurationError, match="expected one like block"):
        kept_operators(tables, Recipe(precision="int8", rules=rules))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "dynamic"])
def test_four_precisions_can_be_asked_for(precision: str) -> None:
    rules = (Rule(match="block", precision="fp32"),)
    assert not list(recipe_problems(Recipe(precision=precision, rules=rules), "here"))
    (problem,) = recipe_problems(Recipe(precision="int4"), "here")
    assert problem.expected == "fp32, fp16, int8, dynamic"
