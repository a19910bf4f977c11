"""Finite masks and infinite ones, in the forms that converters give them, all the way to int8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import Range, Ranges, solve_ranges
from edgeship.exporters.tflite.casts import exact_casts, join_casts
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.exporter import float_activations
from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.mask_constants import unmasked_ranges
from edgeship.exporters.tflite.masks import finite_masks
from edgeship.project import RangePolicy
from edgeship.runtimes.litert import LiteRtRuntime

TOKENS: Final = 8
SHAPE: Final = (1, TOKENS, TOKENS)
STEP: Final = 1 / 256
"""Of an int8 softmax."""
Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]
Arrays = dict[str, np.ndarray]


def masked(handmade: Make, form: str, value: float) -> Tables:
    """softmax over positions whose mask is 1."""
    tensors: dict[str, Any] = {
        "scores": ("FLOAT32", SHAPE),
        "mask": ("INT32", (1, TOKENS)),
        "zero": np.zeros((), np.float32),
        "value": np.full((), value, np.float32),
        "kept": ("BOOL", (1, TOKENS)),
        "row": ("FLOAT32", (1, TOKENS)),
        "given": ("FLOAT32", SHAPE),
        "weights": ("FLOAT32", SHAPE),
    }
    keep = ("CAST", ("mask",), "kept", {"inDataType": 2, "outDataType": 6})
    last = ("SOFTMAX", ("given",), "weights", {"beta": 1.0})
    match form:
        case "chosen":
            made = [keep, ("SELECT_V2", ("kept", "scores", "value"), "given", {})]
        case "added":
            made = [
                keep,
                ("SELECT_V2", ("kept", "zero", "value"), "row", {}),
                ("ADD", ("scores", "row"), "given", {}),
            ]
        case "scaled":
            tensors |= {"eighth": np.full((), 0.125, np.float32), "long": ("FLOAT32", SHAPE)}
            made = [
                keep,
                ("SELECT_V2", ("kept", "scores", "value"), "long", {}),
                ("MUL", ("long", "eighth"), "given", {}),
            ]
        case _:
            tensors |= {
                "one": np.ones((), np.float32),
                "ones": ("FLOAT32", (1, TOKENS)),
                "gone": ("FLOAT32", (1, TOKENS)),
            }
            del tensors["kept"]
            made = [
                ("CAST", ("mask",), "ones", {"inDataType": 2, "outDataType": 0}),
                ("SUB", ("one", "ones"), "gone", {}),
                ("MUL", ("gone", "value"), "row", {}),
                ("ADD", ("scores", "row"), "given", {}),
            ]
    used = {name for _, inputs, output, _ in (*made, last) for name in (*inputs, output)}
    chosen = {name: item for name, item in tensors.items() if name in used}
    return handmade(chosen, [*made, last], ["scores", "mask"], ["weights"])


def sample(seed: int, *, tokens: int, high: float = 4.0) -> Arrays:
    scores = np.random.default_rng(seed).uniform(-high, high, SHAPE).astype(np.float32)
    return {"scores": scores, "mask": (np.arange(TOKENS) < tokens).astype(np.int32)[None]}


def solved(tables: Tables, samples: list[Arrays], directory: Path) -> Ranges:
    file = directory / "float.tflite"
    file.write_bytes(write_model(tables))
    named = ((str(index), arrays) for index, arrays in enumerate(samples))
    with LiteRtRuntime().observe(file, float_activations(tables)) as session:
        return solve_ranges(observe(named, session.run), RangePolicy())


def integer_tables(tables: Tables, ranges: Ranges) -> Tables:
    quantized = read_model(integer_model(write_model(tables), exact_casts(tables, ranges)))
    join_casts(quantized)
    return quantized


def softmax(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Over the positions whose mask is 1, in 64 bits."""
    raised = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True)) * mask
    weights: np.ndarray = raised / raised.sum(-1, keepdims=True)
    return weights


@pytest.mark.parametrize("is_mask_seen", [True, False])
@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("chosen", -np.inf),
        ("chosen", -1e9),
        ("added", -np.inf),
        ("added", -1e4),
        ("added", -100.0),
        ("scaled", -np.inf),
        ("scaled", -1e4),
        ("product", -1e4),
        ("product", -3.4e38),
    ],
)
def test_whatever_masks_weighs_nothing_in_int8_and_sets_no_scale(
    handmade: Make, litert: Run, tmp_path: Path, form: str, value: float, *, is_mask_seen: bool
) -> None:
    tables = masked(handmade, form, value)
    factor = 0.125 if form == "scaled" else 1.0
    high = 4.0 / factor
    tokens = range(3, TOKENS + 1) if is_mask_seen else [TOKENS] * 6
    samples = [sample(seed, tokens=count, high=high) for seed, count in enumerate(tokens)]
    ranges = finite_masks(tables, solved(tables, samples, tmp_path))

    assert not ranges.masks
    # the lowest score, and as far below that all positions together weigh less than half a step
    lowest = -4.0 - np.log(2 * 256 * TOKENS)
    assert lowest <= ranges.by_name["given"].low <= lowest + 0.1
    assert min(item.low for item in ranges.by_name.values()) >= (lowest - 4.0) / factor
    quantized = integer_tables(tables, ranges)
    assert take_census(quantized).is_integer
    new = sample(99, tokens=5, high=high)
    new["scores"][0, 0, :5], new["scores"][0, 0, 5:] = -high, high  # masked, and the highest of all
    found = litert(quantized, new)["weights"]
    np.testing.assert_array_equal(found[..., 5:], 0)
    # a score is off by half a step of each scale on its way, a weight by that part of itself twice
    wide = ranges.by_name["given"].high - ranges.by_name["given"].low
    relative = 2 * np.expm1((8 / 255 + (3 if form == "scaled" else 1) * wide / 255) / 2)
    expected = softmax(new["scores"] * factor, new["mask"])
    assert (np.abs(found - expected) <= STEP + expected * relative).all()


def windows(handmade: Make, value: float) -> Tables:
    """A constant that is added: 0 within each half, `value` between them."""
    between = np.kron([[0, 1], [1, 0]], np.ones((TOKENS // 2, TOKENS // 2)))
    return handmade(
        {
            "scores": ("FLOAT32", SHAPE),
            "windows": np.where(between, value, 0.0).astype(np.float32)[None],
            "given": ("FLOAT32", SHAPE),
            "weights": ("FLOAT32", SHAPE),
        },
        [
            ("ADD", ("scores", "windows"), "given", {}),
            ("SOFTMAX", ("given",), "weights", {"beta": 1.0}),
        ],
        ["scores"],
        ["weights"],
    )


def test_a_constant_that_masks_windows_keeps_its_zeros(
    handmade: Make, litert: Run, tmp_path: Path
) -> None:
    tables = windows(handmade, -100.0)
    samples = [{"scores": sample(seed, tokens=8)["scores"]} for seed in range(8)]
    ranges = finite_masks(tables, solved(tables, samples, tmp_path))
    assert ranges.by_name["given"].low > -13
    found = litert(integer_tables(tables, ranges), samples[0])["weights"]
    half = TOKENS // 2
    np.testing.assert_array_equal(found[0, :half, half:], 0)
    np.testing.assert_allclose(found.sum(-1), 1, atol=TOKENS * STEP)


def test_two_masks_on_the_same_scores_mask_both(
    handmade: Make, litert: Run, tmp_path: Path
) -> None:
    causal = np.triu(np.full(SHAPE[1:], -np.inf), 1).astype(np.float32)[None]
    tables = handmade(
        {
            "scores": ("FLOAT32", SHAPE),
            "mask": ("INT32", (1, TOKENS)),
            "causal": causal,
            "zero": np.zeros((), np.float32),
            "value": np.full((), -1e4, np.float32),
            "kept": ("BOOL", (1, TOKENS)),
            "row": ("FLOAT32", (1, TOKENS)),
            "past": ("FLOAT32", SHAPE),
            "given": ("FLOAT32", SHAPE),
            "weights": ("FLOAT32", SHAPE),
        },
        [
            ("ADD", ("scores", "causal"), "past", {}),
            ("CAST", ("mask",), "kept", {"inDataType": 2, "outDataType": 6}),
            ("SELECT_V2", ("kept", "zero", "value"), "row", {}),
            ("ADD", ("past", "row"), "given", {}),
            ("SOFTMAX", ("given",), "weights", {"beta": 1.0}),
        ],
        ["scores", "mask"],
        ["weights"],
    )
    samples = [sample(seed, tokens=count) for seed, count in enumerate(range(3, 9))]
    ranges = finite_masks(tables, solved(tables, samples, tmp_path))
    new = sample(99, tokens=5)
    new["scores"][0, :, 5:] = 4
    found = litert(integer_tables(tables, ranges), new)["weights"]
    allowed = np.tril(np.ones(SHAPE[1:])) * new["mask"]
    np.testing.assert_array_equal(found[0][allowed == 0], 0)
    assert np.abs(found - softmax(new["scores"], allowed)).max() <= 0.06  # 7 bits of 21 nats


def is_left_alone(tables: Tables, ranges: Ranges) -> bool:
    content = write_model(tables)
    return finite_masks(tables, ranges) is ranges and write_model(tables) == content


def test_a_constant_too_weak_to_mask_such_scores_stays(handmade: Make) -> None:
    wide = Range(low=-60.0, high=60.0)
    ranges = Ranges(by_name={"scores": wide, "given": wide}, dead=(), masks=())
    assert is_left_alone(windows(handmade, -100.0), ranges)
    assert not is_left_alone(windows(handmade, -1e4), ranges)


@pytest.mark.parametrize("reader", ["TANH", None])
def test_a_constant_that_reaches_something_else_stays(handmade: Make, reader: str | None) -> None:
    tables = handmade(
        {
            "scores": ("FLOAT32", SHAPE),
            "low": np.where(np.eye(TOKENS), -1e4, 0.0).astype(np.float32)[None],
            "given": ("FLOAT32", SHAPE),
            "weights": ("FLOAT32", SHAPE),
            "other": ("FLOAT32", SHAPE),
        },
        [
            ("ADD", ("scores", "low"), "given", {}),
            ("SOFTMAX", ("given",), "weights", {"beta": 1.0}),
            *([(reader, ("given",), "other", {})] if reader else []),
        ],
        ["scores"],
        ["weights", "other" if reader else "given"],
    )
    narrow = Range(low=-4.0, high=4.0)
    names = ("scores", "given")
    assert is_left_alone(tables, Ranges(by_name=dict.fromkeys(names, narrow), dead=(), masks=()))


def test_what_shifts_all_scores_is_no_mask(handmade: Make) -> None:
    tables = windows(handmade, -100.0)
    (graph,) = tables.subgraphs
    shift = np.full(SHAPE, -100.0, np.float32)
    tables.buffers[graph.tensors[1].buffer].data = np.frombuffer(shift.tobytes(), np.uint8)
    shifted = Range(low=-104.0, high=-96.0)
    ranges = {"scores": Range(low=-4.0, high=4.0), "given": shifted}
    assert is_left_alone(tables, Ranges(by_name=ranges, dead=(), masks=()))


@pytest.mark.parametrize(("high", "count"), [(1.0, 1), (2.0, 0)])
def test_a_product_masks_only_with_ones_and_zeros(handmade: Make, high: float, count: int) -> None:
    narrow = Range(low=-4.0, high=4.0)
    by_name = {"scores": narrow, "given": narrow, "gone": Range(low=0.0, high=high)}
    ranges = Ranges(by_name=by_name, dead=(), masks=())
    found, _ = unmasked_ranges(masked(handmade, "product", -1e4), ranges)
    assert len(found) == count
