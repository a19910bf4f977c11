from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, solve_ranges
from edgeship.calibration.statistics import empty_statistics
from edgeship.exporters.tflite.flatbuffer import read_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.projection import project_ranges
from edgeship.project import RangePolicy
from edgeship.vocabulary import RangeMethod

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


def test_heads_that_are_broadcast_have_zero_point_0_up_to_their_layer() -> None:
    net = tiny.Tiny()
    net.activation("left", 2, 3, 4)
    net.activation("key", 4, 2)
    net.activation("moved", 1, 4, 2)
    net.activation("heads", 2, 4, 2)
    net.activation("y", 2, 3, 2)
    net.constant("one", [1, 4, 2], np.int32)
    net.constant("two", [2, 4, 2], np.int32)
    net.operator("RESHAPE", ["key", "one"], ["moved"], "ReshapeOptions")
    net.operator("BROADCAST_TO", ["moved", "two"], ["heads"], "BroadcastToOptions")
    net.operator("BATCH_MATMUL", ["left", "heads"], ["y"], "BatchMatMulOptions")
    content = net.write(["left", "key"], ["y"])
    ends = (-1.0, 3.0)
    projected, _ = project_ranges(
        read_model(content), tiny.ranges(**ENDS, key=ends, moved=ends, heads=ends)
    )

    quantized = integer_model(content, projected)
    for name in ("key", "moved", "heads"):
        assert tiny.scales(quantized, name) == ([np.float32(3 / 127)], [0])


def joined(order: list[str]) -> bytes:
    """left x [a; b], each of them a layer's output."""
    net = tiny.Tiny()
    weights = np.random.default_rng(0).normal(size=(4, 4))
    net.activation("left", 4, 4)
    net.activation("x", 2, 4)
    net.linear("x", weights, np.zeros(4), "a")
    net.linear("x", 3 * weights, np.ones(4), "b")
    net.activation("rows", 4, 4)
    net.activation("y", 4, 4)
    net.operator("CONCATENATION", order, ["rows"], "ConcatenationOptions")
    net.operator("BATCH_MATMUL", ["left", "rows"], ["y"], "BatchMatMulOptions")
    return bytes(net.write(["left", "x"], ["y"]))


def test_what_a_joined_right_operand_is_made_of_takes_its_scale_without_requantizing() -> None:
    content = joined(["a", "b"])
    ranges = tiny.ranges(**ENDS, x=(-1.0, 1.0), a=(-2.0, 1.0), b=(-5.0, 4.0), rows=(-5.0, 4.0))
    projected, _ = project_ranges(read_model(content), ranges)

    quantized = integer_model(content, projected)
    assert "QUANTIZE" not in tiny.kinds(quantized)
    for name in ("a", "b", "rows"):
        assert tiny.scales(quantized, name) == ([np.float32(5.0 / 128)], [0])


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


@pytest.mark.parametrize(("mover", "low"), [("MAX_POOL_2D", -3.5), ("AVERAGE_POOL_2D", -9.0)])
def test_a_cut_goes_back_past_a_maximum_but_not_past_a_mean(mover: str, low: float) -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 4, 4, 1)
    net.activation("pooled", 1, 2, 2, 1)
    net.activation("y", 1, 2, 2, 1)
    sizes = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": 1}
    net.operator(mover, ["x"], ["pooled"], "Pool2DOptions", **sizes)
    net.operator("GELU", ["pooled"], ["y"], "GeluOptions")
    content = net.write(["x"], ["y"])
    ranges = tiny.ranges(x=(-9.0, 4.0), pooled=(-9.0, 4.0), y=(-0.17, 4.0))
    projected, _ = project_ranges(read_model(content), ranges)
    assert projected.by_name["pooled"].low == -3.5
    assert projected.by_name["x"].low == low


@pytest.mark.parametrize("policy", list(RangeMethod))
def test_gelu_is_cut_under_every_policy(policy: RangeMethod) -> None:
    """Of -40..4, every policy leaves more below -3.5 than GELU can tell apart."""
    values = np.random.default_rng(0).uniform(-40, 4, (8, 64)).astype(np.float32)
    statistics = empty_statistics(64)
    statistics.add(values, 1)
    solved = solve_ranges({"x": statistics, "moved": statistics}, RangePolicy(method=policy))
    assert solved.by_name["x"].low < -3.5
    projected, _ = project_ranges(read_model(gelu(has_other_reader=False)), solved)
    assert projected.by_name["x"].low == projected.by_name["moved"].low == -3.5


def test_ranges_are_not_modified_and_the_rest_is_kept() -> None:
    ranges = tiny.ranges(**ENDS, right=(-1.0, 3.0), moved=(-1.0, 3.0))
    before = dict(ranges.by_name)
    projected, _ = project_ranges(read_model(product()), ranges)

    assert dict(ranges.by_name) == before
    assert (projected.dead, projected.masks) == (ranges.dead, ranges.masks)
