from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.dynamic import dynamic_model
from edgeship.exporters.tflite.flatbuffer import operators, read_model, write_model
from edgeship.exporters.tflite.outer_scales import move_scales_out

Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]
RELU: Final = 1
CHANNELS: Final = 32


def two_layers(handmade: Make, weights: np.ndarray, *, is_biased: bool) -> Tables:
    """relu(x W + b) W + b: the weights, of channels from 1 to 100 times as large, are shared."""
    bias = ("m/bias",) if is_biased else ()
    return handmade(
        {
            "x": ("FLOAT32", (4, CHANNELS)),
            "m/weight": weights,
            "m/bias": np.linspace(-3, 3, CHANNELS, dtype=np.float32),
            "m/fully_connected": ("FLOAT32", (4, CHANNELS)),
            "y": ("FLOAT32", (4, CHANNELS)),
        },
        [
            (
                "FULLY_CONNECTED",
                ("x", "m/weight", *bias),
                "m/fully_connected",
                {"fusedActivationFunction": RELU},
            ),
            ("FULLY_CONNECTED", ("m/fully_connected", "m/weight", *bias), "y", {}),
        ],
        ["x"],
        ["y"],
    )


@pytest.mark.parametrize("is_biased", [True, False])
def test_scales_behind_a_layer_compute_what_scales_in_it_do(
    handmade: Make, litert: Run, *, is_biased: bool
) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(CHANNELS, CHANNELS)).astype(np.float32)
    weights *= np.geomspace(0.01, 1, CHANNELS, dtype=np.float32)[:, None]
    tables = two_layers(handmade, weights, is_biased=is_biased)
    x = random.normal(size=(4, CHANNELS)).astype(np.float32)
    exact = litert(tables, {"x": x})["y"]
    dynamic = read_model(dynamic_model(write_model(tables), for_old=False))
    before = litert(dynamic, {"x": x})["y"]
    assert move_scales_out(dynamic) == 2
    after = litert(dynamic, {"x": x})["y"]
    # the same integers: what is left is float rounding
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    assert np.abs(after - exact).max() <= 0.02 * np.abs(exact).max()
    assert len(take_census(dynamic).hybrid) == 2
    for graph, operator in operators(dynamic):
        for index in operator.inputs:
            quantization = graph.tensors[index].quantization if index >= 0 else None
            assert quantization is None or quantization.scale is None or len(quantization.scale) < 2


def test_a_float_layer_stays(handmade: Make) -> None:
    tables = two_layers(handmade, np.eye(CHANNELS, dtype=np.float32), is_biased=True)
    content = write_model(tables)
    assert move_scales_out(tables) == 0
    assert write_model(tables) == content
