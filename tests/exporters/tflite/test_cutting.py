from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edgeship.exporters.tflite.cutting import cut_operator
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    operator_name,
    read_model,
    tensor_name,
    write_model,
)

Make = Callable[..., ModelT]
Litert = Callable[[ModelT, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.normal(size=(5, 4)).astype(np.float32)
BIAS = GENERATOR.normal(size=5).astype(np.float32)


@pytest.fixture
def tables(handmade: Make) -> ModelT:
    """relu(W x + b) * b, and the same without the first bias."""
    tensors: dict[str, Any] = {
        "x": ("FLOAT32", (2, 4)),
        "weights": WEIGHTS,
        "bias": BIAS,
        "hidden": ("FLOAT32", (2, 5)),
        "positive": ("FLOAT32", (2, 5)),
        "y": ("FLOAT32", (2, 5)),
        "bare": ("FLOAT32", (2, 5)),
    }
    operators: list[tuple[str, tuple[str, ...], str, dict[str, object]]] = [
        ("FULLY_CONNECTED", ("x", "weights", "bias"), "hidden", {}),
        ("RELU", ("hidden",), "positive", {}),
        ("MUL", ("positive", "bias"), "y", {}),
        ("FULLY_CONNECTED", ("x", "weights", "bias"), "bare", {}),
    ]
    made = handmade(tensors, operators, ["x"], ["y", "bare"])
    graph = made.subgraphs[0]
    graph.operators[3].inputs = [*graph.operators[3].inputs[:2], -1]
    return made


def ends(content: bytes) -> tuple[list[str], list[str], list[str]]:
    """Names of the operators, the inputs and the outputs."""
    model = read_model(content)
    (graph,) = model.subgraphs
    inputs, outputs = (
        [tensor_name(graph.tensors[index]) for index in side]
        for side in (graph.inputs, graph.outputs)
    )
    return [operator_name(model, item) for item in graph.operators], inputs, outputs


def test_activations_are_ends_and_constants_come_along(tables: ModelT) -> None:
    found = [ends(cut_operator(tables, place)) for place in range(4)]
    assert found == [
        (["FULLY_CONNECTED"], ["x"], ["hidden"]),
        (["RELU"], ["hidden"], ["positive"]),
        (["MUL"], ["positive"], ["y"]),
        (["FULLY_CONNECTED"], ["x"], ["bare"]),
    ]


def test_each_computes_what_it_did(tables: ModelT, litert: Litert) -> None:
    x = GENERATOR.normal(size=(2, 4)).astype(np.float32)
    hidden = x @ WEIGHTS.T + BIAS
    positive = np.maximum(hidden, 0)
    given = ({"x": x}, {"hidden": hidden}, {"positive": positive}, {"x": x})
    expected = (hidden, positive, positive * BIAS, x @ WEIGHTS.T)
    for place, (inputs, values) in enumerate(zip(given, expected, strict=True)):
        (made,) = litert(read_model(cut_operator(tables, place)), inputs).values()
        assert np.allclose(made, values, rtol=1e-5, atol=1e-6), place


def test_the_file_is_left_as_it_is(tables: ModelT) -> None:
    before = write_model(tables)
    for place in range(4):
        cut_operator(tables, place)
    assert write_model(tables) == before


def test_an_operator_that_reads_a_tensor_twice_has_one_input(handmade: Make) -> None:
    tensors = {"x": ("FLOAT32", (2, 4)), "y": ("FLOAT32", (2, 4))}
    made = handmade(tensors, [("MUL", ("x", "x"), "y", {})], ["x"], ["y"])
    assert ends(cut_operator(made, 0)) == (["MUL"], ["x"], ["y"])
