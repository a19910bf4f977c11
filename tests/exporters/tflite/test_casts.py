from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.casts import exact_casts, join_casts
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.integer import integer_model

Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]


def masked(handmade: Make) -> Tables:
    """x * mask and mask * mask, the mask an integer input."""
    return handmade(
        {
            "x": ("FLOAT32", (1, 4)),
            "mask": ("INT32", (1, 4)),
            "m/cast": ("FLOAT32", (1, 4)),
            "product": ("FLOAT32", (1, 4)),
            "square": ("FLOAT32", (1, 4)),
        },
        [
            ("CAST", ("mask",), "m/cast", {"inDataType": 2, "outDataType": 0}),
            ("MUL", ("x", "m/cast"), "product", {}),
            ("MUL", ("m/cast", "m/cast"), "square", {}),
        ],
        ["x", "mask"],
        ["product", "square"],
    )


def ranges_to(high: float) -> Ranges:
    known = {
        "x": Range(low=-1.0, high=1.0),
        "m/cast": Range(low=0.0, high=high),
        "product": Range(low=-high, high=high),
        "square": Range(low=0.0, high=high * high),
    }
    return Ranges(by_name=known, dead=(), masks=())


def quantized(handmade: Make, high: float) -> Tables:
    tables = masked(handmade)
    content = integer_model(write_model(tables), exact_casts(tables, ranges_to(high)))
    joined = read_model(content)
    join_casts(joined)
    return joined


@pytest.mark.parametrize("high", [1, 3, 127])
def test_an_integer_input_is_int8_as_it_is(handmade: Make, litert: Run, high: int) -> None:
    tables = quantized(handmade, high)
    census = take_census(tables)
    assert census.is_integer
    assert "QUANTIZE" not in census.operators
    x, mask = np.array([[0.5, -1.0, 0.25, 1.0]]), np.array([[0, high, 1, high]])
    found = litert(tables, {"x": x, "mask": mask})
    # half a step of x, times the mask; half a step of the output, and a little for the kernel
    bound = (mask / 255 + high / 255) * 1.05
    assert (np.abs(found["product"] - x * mask) <= bound).all(), found["product"]
    assert (np.abs(found["square"] - mask * mask) <= high * high / 255).all()


def test_integers_beyond_int8_keep_their_range_and_their_float_tensor(handmade: Make) -> None:
    tables = masked(handmade)
    ranges = ranges_to(300.0)
    assert exact_casts(tables, ranges).by_name == ranges.by_name
    assert take_census(quantized(handmade, 300.0)).float_tensors == ("m/cast",)
