from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.exporters.tflite.flatbuffer import read_model, tensor_name
from edgeship.exporters.tflite.half import half_model, half_notes

tiny = SimpleNamespace(**run_path(str(Path(__file__).with_name("tiny.py"))))


def layers(first: np.ndarray, second: np.ndarray) -> bytes:
    net = tiny.Tiny()
    net.activation("x", 1, first.shape[1])
    net.linear("x", first, np.full(len(first), 0.1), "a/linear")
    net.linear("a/linear", second, np.full(len(second), 0.1), "y")
    return bytes(net.write(["x"], ["y"]))


def weights(content: bytes, name: str) -> np.ndarray:
    model = read_model(content)
    (tensor,) = (item for item in model.subgraphs[0].tensors if tensor_name(item) == name)
    return np.asarray(model.buffers[tensor.buffer].data)


def test_weights_are_rounded_to_float16_and_the_rest_is_float32() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(6, 8)), generator.normal(size=(3, 6))
    content = layers(first, second)
    half = half_model(content)

    types = tiny.types(half)
    assert {name for name, kind in types.items() if kind == "FLOAT16"} == {
        "a/linear.weight",
        "y.weight",
    }
    assert {types[name] for name in ("x", "y", "a/linear", "a/linear.bias")} == {"FLOAT32"}
    stored = weights(half, "y.weight").tobytes()
    assert stored == second.astype(np.float32).astype(np.float16).tobytes()
    x = generator.normal(size=(1, 8)).astype(np.float32)
    hidden = x @ first.astype(np.float16).astype(np.float64).T + 0.1
    y = hidden @ second.astype(np.float16).astype(np.float64).T + 0.1
    np.testing.assert_allclose(tiny.run(half, x), y, rtol=1e-5, atol=1e-5)
    assert half_notes(content) == []
    assert half_model(content) == half


@pytest.mark.parametrize("value", [65504.0, 65519.0, -65520.0, 1e9])
def test_weights_beyond_float16_stay_float32(value: float) -> None:
    first = np.array([[1.0, value], [2.0, 3.0]])
    content = layers(first, np.eye(2))
    half = half_model(content)

    is_kept = abs(value) > 65504
    assert tiny.types(half)["a/linear.weight"] == ("FLOAT32" if is_kept else "FLOAT16")
    assert tiny.types(half)["y.weight"] == "FLOAT16"
    text = f"weights of a/linear stay in float32: {value:.4g} is beyond float16"
    assert half_notes(content) == ([text] if is_kept else [])
    y = tiny.run(half, np.array([[0.0, 1.0]], np.float32))
    np.testing.assert_allclose(y, [[value + 0.2, 3.2]], rtol=1e-6)


def test_large_bias_does_not_keep_the_weights() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.linear("x", np.eye(2), [1e6, -1e6], "y")
    content = net.write(["x"], ["y"])

    assert tiny.types(half_model(content))["y.weight"] == "FLOAT16"
    assert half_notes(content) == []


def test_kept_operator_keeps_its_weights() -> None:
    content = layers(np.eye(2), 2 * np.eye(2))
    types = tiny.types(half_model(content, kept=["a/linear"]))

    assert types["a/linear.weight"] == "FLOAT32"
    assert types["y.weight"] == "FLOAT16"


def test_infinities_are_kept_as_they_are() -> None:
    content = layers(np.array([[1.0, -np.inf]]), np.ones((1, 1)))
    stored = weights(half_model(content), "a/linear.weight").tobytes()

    assert stored == np.array([1.0, -np.inf], np.float16).tobytes()
