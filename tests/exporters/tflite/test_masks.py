from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.flatbuffer import operator_name, operators, read_model, write_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.masks import finite_masks, reshape_gathers

TOKENS: Final = 8
LOWEST: Final = float(np.finfo(np.float32).min)
STEP: Final = 1 / 256
"""Of an int8 softmax."""
Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]


def attention(handmade: Make, order: list[int]) -> Tables:
    """softmax(scores + (0 where the mask is 1, else -3.4e38)), the mask indexed as in a BERT."""
    places = np.stack([np.zeros(TOKENS, np.int32), np.array(order, np.int32)], axis=1)
    return handmade(
        {
            "scores": ("FLOAT32", (1, TOKENS, TOKENS)),
            "mask": ("INT32", (1, TOKENS)),
            "m/places": places.reshape(1, 1, TOKENS, 2),
            "m/zero": np.zeros((), np.float32),
            "m/lowest": np.full((), LOWEST, np.float32),
            "m/cast": ("BOOL", (1, TOKENS)),
            "m/gather_nd": ("BOOL", (1, 1, TOKENS)),
            "m/select_v2": ("FLOAT32", (1, 1, TOKENS)),
            "m/add": ("FLOAT32", (1, TOKENS, TOKENS)),
            "weights": ("FLOAT32", (1, TOKENS, TOKENS)),
        },
        [
            ("CAST", ("mask",), "m/cast", {"inDataType": 2, "outDataType": 6}),
            ("GATHER_ND", ("m/cast", "m/places"), "m/gather_nd", {}),
            ("SELECT_V2", ("m/gather_nd", "m/zero", "m/lowest"), "m/select_v2", {}),
            ("ADD", ("scores", "m/select_v2"), "m/add", {}),
            ("SOFTMAX", ("m/add",), "weights", {"beta": 1.0}),
        ],
        ["scores", "mask"],
        ["weights"],
    )


def ranges_of(scores: np.ndarray, *, is_mask_seen: bool) -> Ranges:
    seen = Range(low=float(scores.min()), high=float(scores.max()))
    return Ranges(
        by_name={
            "scores": seen,
            "m/select_v2": Range(low=0.0, high=0.0),
            "m/add": seen,
            "weights": Range(low=0.0, high=1.0),
        },
        dead=(),
        masks=("m/select_v2", "m/add") if is_mask_seen else (),
    )


def softmax(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Over the positions whose mask is 1, in 64 bits."""
    raised = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True)) * mask
    weights: np.ndarray = raised / raised.sum(-1, keepdims=True)
    return weights


def operator_names(tables: Tables) -> list[str]:
    return [operator_name(tables, operator) for _, operator in operators(tables)]


def test_a_gather_of_everything_in_order_is_a_reshape(handmade: Make, litert: Run) -> None:
    tables = attention(handmade, list(range(TOKENS)))
    inputs = {
        "scores": np.random.default_rng(0).normal(size=(1, TOKENS, TOKENS)).astype(np.float32),
        "mask": np.array([[1, 1, 0, 1, 1, 0, 0, 0]]),
    }
    before = litert(tables, inputs)["weights"]
    reshape_gathers(tables)
    assert operator_names(tables)[1] == "RESHAPE"
    np.testing.assert_array_equal(litert(tables, inputs)["weights"], before)
    np.testing.assert_allclose(before, softmax(inputs["scores"], inputs["mask"]), atol=1e-6)


def test_a_gather_in_another_order_stays(handmade: Make) -> None:
    tables = attention(handmade, [1, 0, *range(2, TOKENS)])
    reshape_gathers(tables)
    assert operator_names(tables)[1] == "GATHER_ND"


@pytest.mark.parametrize("is_mask_seen", [True, False])
def test_masked_positions_weigh_nothing_in_int8(
    handmade: Make, litert: Run, *, is_mask_seen: bool
) -> None:
    tables = attention(handmade, list(range(TOKENS)))
    reshape_gathers(tables)
    random = np.random.default_rng(1)
    scores = random.uniform(-4, 4, (1, TOKENS, TOKENS)).astype(np.float32)
    scores[0, 0], scores[0, 0, 5:] = -4, 4  # a row whose masked scores are the highest of all
    mask = np.array([[1, 1, 1, 1, 1, 0, 0, 0]])
    ranges = finite_masks(tables, ranges_of(scores, is_mask_seen=is_mask_seen))
    assert not ranges.masks
    quantized = read_model(integer_model(write_model(tables), ranges))
    assert take_census(quantized).is_integer
    found = litert(quantized, {"scores": scores, "mask": mask})["weights"]
    np.testing.assert_array_equal(found[..., 5:], 0)
    # a score is off by half a step of both scales, 8 / 255 and that of the wider range behind it,
    # hence a weight by that part of itself, and twice: its own and the sum's
    wide = ranges.by_name["m/add"].high - ranges.by_name["m/add"].low
    relative = 2 * np.expm1((8 / 255 + wide / 255) / 2)
    expected = softmax(scores, mask)
    assert (np.abs(found - expected) <= STEP + expected * relative).all()


def test_the_float_file_keeps_its_values_with_a_finite_mask(handmade: Make, litert: Run) -> None:
    tables = attention(handmade, list(range(TOKENS)))
    scores = np.random.default_rng(2).uniform(-4, 4, (1, TOKENS, TOKENS)).astype(np.float32)
    inputs = {"scores": scores, "mask": np.array([[1, 1, 1, 0, 0, 0, 0, 0]])}
    before = litert(tables, inputs)["weights"]
    finite_masks(tables, ranges_of(scores, is_mask_seen=True))
    after = litert(tables, inputs)["weights"]
    assert np.abs(after - before).max() <= STEP / 2


def test_a_file_without_sentinels_keeps_its_ranges(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("FLOAT32", (1, 4)),
            "m/low": np.full((1, 4), -1e4, np.float32),
            "y": ("FLOAT32", (1, 4)),
        },
        [("ADD", ("x", "m/low"), "y", {})],
        ["x"],
        ["y"],
    )
    ranges = Ranges(by_name={"x": Range(low=-1, high=1)}, dead=(), masks=())
    content = write_model(tables)
    assert finite_masks(tables, ranges) is ranges
    assert write_model(tables) == content
