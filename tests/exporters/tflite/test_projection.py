from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.calibration.ranges import Range
from edgeship.exporters.tflite.flatbuffer import read_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.projection import project_ranges

tiny = SimpleNamespace(**run_path(str(Path(__file__).with_name("tiny.py"))))
ENDS = {"left": (-1.0, 1.0), "y": (-20.0, 20.0)}


def product(*, mover: str = "RESHAPE", is_constant: bool = False) -> bytes:
    """left x mover(right)."""
    net = tiny.Tiny()
    net.activation("left", 1, 3, 4)
    if is_constant:
        net.constant("right", np.ones((8,)))
    else:
        net.activation("right", 8)
    net.activation("moved", 1, 4, 2)
    net.activation("y", 1, 3, 2)
    if mover == "RESHAPE":
        net.constant("shape", [1, 4, 2], np.int32)
        net.operator("RESHAPE", ["right", "shape"], ["moved"], "ReshapeOptions")
    else:
        net.operator(mover, ["right"], ["moved"])
    net.operator("BATCH_MATMUL", ["left", "moved"], ["y"], "BatchMatMulOptions")
    inputs = ["left"] if is_constant else ["left", "right"]
    return bytes(net.write(inputs, ["y"]))


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (-3.0, 1.0), (0.5, 2.0), (-2.0, -0.5)])
def test_right_operand_of_a_product_and_what_it_comes_from_have_zero_point_0(
    ends: tuple[float, float],
) -> None:
    content, ranges = product(), tiny.ranges(**ENDS, right=ends, moved=ends)
    projected, notes = project_ranges(read_model(content), ranges)

    new = projected.by_name["right"]
    assert new == projected.by_name["moved"]
    assert new.low == -128 / 127 * new.high
    assert new.low <= ends[0] <= ends[1] <= new.high
    assert new.high in ends or new.low in ends
    assert {name: projected.by_name[name] for name in ENDS} == {
        name: ranges.by_name[name] for name in ENDS
    }
    assert len(notes) == 1
    assert notes[0].endswith("zero point is 0: moved, right")
    quantized = integer_model(content, projected)
    for name in ("right", "moved"):
        assert tiny.scales(quantized, name) == ([np.float32(new.high / 127)], [0])


def test_right_operand_without_a_range_and_other_operands_are_left_alone() -> None:
    ranges = tiny.ranges(**ENDS)
    assert project_ranges(read_model(product()), ranges) == (ranges, [])


def test_constant_right_operand_is_left_alone() -> None:
    ranges = tiny.ranges(**ENDS, moved=(0.0, 1.0))
    assert project_ranges(read_model(product(is_constant=True)), ranges) == (ranges, [])


def test_right_operand_of_a_fixed_scale_is_left_alone() -> None:
    ranges = tiny.ranges(**ENDS, right=(-4.0, 3.0), moved=(0.0, 1.0))
    assert project_ranges(read_model(product(mover="SOFTMAX")), ranges) == (ranges, [])


def test_operands_that_share_an_ancestor_have_its_range() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 4, 4)
    for name in ("a", "b"):
        net.activation(name, 1, 4, 4)
        net.constant(f"{name}.order", [0, 2, 1], np.int32)
        net.operator("TRANSPOSE", ["x", f"{name}.order"], [name], "TransposeOptions")
        net.activation(f"{name}.y", 1, 4, 4)
        net.operator("BATCH_MATMUL", [name, name], [f"{name}.y"], "BatchMatMulOptions")
    content = net.write(["x"], ["a.y", "b.y"])
    projected, _ = project_ranges(
        read_model(content), tiny.ranges(x=(-1.0, 2.0), a=(-1.0, 5.0), b=(-1.0, 2.0))
    )

    assert projected.by_name["x"] == Range(low=-128 / 127 * 5.0, high=5.0)


def gelu(*, has_other_reader: bool) -> bytes:
    net = tiny.Tiny()
    net.activation("x", 8)
    net.activation("moved", 1, 8)
    net.activation("y", 1, 8)
    net.constant("shape", [1, 8], np.int32)
    net.operator("RESHAPE", ["x", "shape"], ["moved"], "ReshapeOptions")
    net.operator("GELU", ["moved"], ["y"], "GeluOptions")
    if has_other_reader:
        net.activation("other", 8)
        net.operator("TANH", ["x"], ["other"])
    return bytes(net.write(["x"], ["y", "other"] if has_other_reader else ["y"]))


def test_what_gelu_reads_is_cut_at_its_flat_end() -> None:
    ranges = tiny.ranges(x=(-9.0, 4.0), moved=(-9.0, 4.0), y=(-0.17, 4.0))
    projected, notes = project_ranges(read_model(gelu(has_other_reader=False)), ranges)

    assert projected.by_name["x"] == projected.by_name["moved"] == Range(low=-3.5, high=4.0)
    assert projected.by_name["y"] == ranges.by_name["y"]
    assert notes[0].startswith("range of what GELU reads cut at -3.5")
    assert notes[0].endswith(": moved, x")
    values = np.array([-9, -6, -3.5, -1, 0, 1, 2, 4], np.float32)
    y = tiny.run(integer_model(gelu(has_other_reader=False), projected), values)
    exact = tiny.run(gelu(has_other_reader=False), values)
    assert np.abs(y - exact).max() <= 7.5 / 255 / 2 * 1.13 + 4.17 / 255  # GELU's slope is <= 1.13


def test_gelu_that_starts_higher_is_left_alone() -> None:
    ranges = tiny.ranges(x=(-3.0, 4.0), moved=(-3.0, 4.0), y=(-0.17, 4.0))
    assert project_ranges(read_model(gelu(has_other_reader=False)), ranges) == (ranges, [])


def test_what_others_read_too_is_not_cut() -> None:
    ranges = tiny.ranges(x=(-9.0, 4.0), moved=(-9.0, 4.0), y=(-0.17, 4.0))
    projected, _ = project_ranges(read_model(gelu(has_other_reader=True)), ranges)

    assert projected.by_name["x"] == ranges.by_name["x"]


def test_ranges_are_not_modified_and_the_rest_is_kept() -> None:
    ranges = tiny.ranges(**ENDS, right=(-1.0, 3.0), moved=(-1.0, 3.0))
    before = dict(ranges.by_name)
    projected, _ = project_ranges(read_model(product()), ranges)

    assert dict(ranges.by_name) == before
    assert (projected.dead, projected.masks) == (ranges.dead, ranges.masks)
