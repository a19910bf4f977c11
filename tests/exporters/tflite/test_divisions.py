from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.divisions import divide_by_roots
from edgeship.exporters.tflite.flatbuffer import operator_name, operators, read_model, write_model
from edgeship.exporters.tflite.integer import integer_model

Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]


def quotient(handmade: Make, least: float) -> Tables:
    """x / max(n, least), n broadcast over x."""
    return handmade(
        {
            "x": ("FLOAT32", (1, 6)),
            "n": ("FLOAT32", (1, 1)),
            "m/least": np.full((1, 1), least, np.float32),
            "m/maximum": ("FLOAT32", (1, 1)),
            "y": ("FLOAT32", (1, 6)),
        },
        [
            ("MAXIMUM", ("n", "m/least"), "m/maximum", {}),
            ("DIV", ("x", "m/maximum"), "y", {}),
        ],
        ["x", "n"],
        ["y"],
    )


def operator_names(tables: Tables) -> list[str]:
    return [operator_name(tables, operator) for _, operator in operators(tables)]


@pytest.mark.parametrize("divisor", [1e-12, 0.3, 1.0, 128.0])
def test_the_products_are_the_quotient(handmade: Make, litert: Run, divisor: float) -> None:
    tables = quotient(handmade, 1e-9)
    divide_by_roots(tables)
    assert operator_names(tables) == ["MAXIMUM", "RSQRT", "MUL", "MUL"]
    x = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    found = litert(tables, {"x": x, "n": np.array([[divisor]])})["y"]
    # each of three operations rounds to 2**-24 of its result, the root is squared
    np.testing.assert_allclose(found, x / max(divisor, 1e-9), rtol=5 * 2**-23)


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_a_divisor_that_may_not_be_positive_stays(handmade: Make, least: float) -> None:
    tables = quotient(handmade, least)
    divide_by_roots(tables)
    assert operator_names(tables) == ["MAXIMUM", "DIV"]


def test_the_products_are_fully_integer(handmade: Make, litert: Run) -> None:
    tables = quotient(handmade, 1e-9)
    divide_by_roots(tables)
    ends = {"x": (-60, 60), "n": (0, 128), "m/maximum": (0, 128), "y": (-2, 2)}
    ends |= {"m/rsqrt": (0, 1), "m/mul": (-20, 20)}
    known = {name: Range(low=low, high=high) for name, (low, high) in ends.items()}
    content = integer_model(write_model(tables), Ranges(by_name=known, dead=(), masks=()))
    quantized = read_model(content)
    assert take_census(quantized).is_integer
    x, n = np.array([[-60.0, -30.0, -1.0, 0.0, 30.0, 60.0]]), np.array([[64.0]])
    found = litert(quantized, {"x": x, "n": n})["y"]
    # the root, 1/8, is off by half of 1/255 of its range, which is 1.6 %, and counts twice; each
    # product is off by half a step: 20/255 and 2/255
    bound = np.abs(x / n) * 0.033 + 20 / 255 / 8 + 2 / 255 + 60 / 255 / 64
    assert (np.abs(found - x / n) <= bound).all(), found
