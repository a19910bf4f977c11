from collections.abc import Callable
from typing import Final

import numpy as np

from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.flatbuffer import ModelT
from edgeship.exporters.tflite.notes import census_notes

Make = Callable[..., ModelT]
ROW: Final = (1, 4)


def test_a_plain_integer_file_needs_no_words(handmade: Make) -> None:
    tables = handmade(
        {"x": ("INT8", ROW), "y": ("INT8", ROW)}, [("RELU", ("x",), "y", {})], ["x"], ["y"]
    )
    for precision in ("int8", "fp32", "fp16"):
        assert census_notes(take_census(tables), precision) == ()


def test_transposes_and_requantizations_are_counted_by_module(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("INT8", ROW),
            "stem/transpose": ("INT8", ROW),
            "stem/transpose;1": ("INT8", ROW),
            "head/transpose": ("INT8", ROW),
            "head/transpose_requant": ("INT8", ROW),
        },
        [
            ("TRANSPOSE", ("x",), "stem/transpose", {}),
            ("TRANSPOSE", ("stem/transpose",), "stem/transpose;1", {}),
            ("TRANSPOSE", ("stem/transpose;1",), "head/transpose", {}),
            ("QUANTIZE", ("head/transpose",), "head/transpose_requant", {}),
        ],
        ["x"],
        ["head/transpose_requant"],
    )
    assert census_notes(take_census(tables), "int8") == (
        "3 TRANSPOSE operators: in stem (2), head",
        "1 QUANTIZE operator between integer scales: in head",
    )


def test_what_rules_keep_in_float_is_a_label(handmade: Make) -> None:
    names = [f"layer{index}/exp" for index in range(7)]
    tables = handmade(
        {"x": ("FLOAT32", ROW), **dict.fromkeys(names, ("FLOAT32", ROW))},
        [("EXP", (before,), name, {}) for before, name in zip(["x", *names], names, strict=False)],
        ["x"],
        names[-1:],
    )
    assert census_notes(take_census(tables), "int8", kept=names) == (
        "not fully integer: 7 operators in float by your rules: 7 EXP;"
        " in layer0, layer1, layer2, layer3, layer4 and 2 more",
    )


def test_what_stays_in_float_for_another_reason_is_no_rule_of_the_user(handmade: Make) -> None:
    tables = handmade(
        {"x": ("FLOAT32", ROW), "mask/add": ("FLOAT32", ROW)},
        [("ADD", ("x", "x"), "mask/add", {})],
        ["x"],
        ["mask/add"],
    )
    assert census_notes(take_census(tables), "int8") == (
        "not fully integer: 1 operator in float: 1 ADD; in mask",
    )


def test_dynamic_is_never_called_integer(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("FLOAT32", ROW),
            "head/weight": np.ones((4, 4), np.int8),
            "head/linear": ("FLOAT32", ROW),
            "y": ("FLOAT32", ROW),
        },
        [
            ("FULLY_CONNECTED", ("x", "head/weight"), "head/linear", {}),
            ("RELU", ("head/linear",), "y", {}),
        ],
        ["x"],
        ["y"],
    )
    assert census_notes(take_census(tables), "dynamic") == (
        "not fully integer: dynamic range, activations are quantized at run time",
        "int8 weights: 1 FULLY_CONNECTED",
        "computed in float32: 1 RELU",
    )


def test_half_weights_are_computed_in_float32(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("FLOAT32", ROW),
            "head/weight": np.ones((4, 4), np.float16),
            "head/weight_dequant": ("FLOAT32", (4, 4)),
            "y": ("FLOAT32", ROW),
        },
        [
            ("DEQUANTIZE", ("head/weight",), "head/weight_dequant", {}),
            ("FULLY_CONNECTED", ("x", "head/weight_dequant"), "y", {}),
        ],
        ["x"],
        ["y"],
    )
    assert census_notes(take_census(tables), "fp16") == ("weights in float16, computed in float32",)


def test_wide_integers_are_said(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("INT16", ROW),
            "head/weight": np.ones((3, 4), np.int8),
            "head/bias": np.ones(3, np.int64),
            "y": ("INT16", (1, 3)),
        },
        [("FULLY_CONNECTED", ("x", "head/weight", "head/bias"), "y", {})],
        ["x"],
        ["y"],
    )
    assert census_notes(take_census(tables), "int8") == (
        "2 activations in int16",
        "1 bias in int64",
    )
