from __future__ import annotations

import logging
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.ranges import Range, Ranges
from edgeship.errors import ExportFailed
from edgeship.exporters.tflite.flatbuffer import read_model, tensor_name
from edgeship.exporters.tflite.integer import float_operators, integer_model

tiny = SimpleNamespace(**run_path(str(Path(__file__).with_name("tiny.py"))))
GENERATOR = np.random.default_rng(0)


def two_layers(**ends: tuple[float, float]) -> tuple[bytes, Ranges]:
    net, generator = tiny.Tiny(), np.random.default_rng(1)
    net.activation("x", 4, 8)
    net.linear("x", generator.normal(size=(6, 8)), generator.normal(size=6), "hidden")
    net.linear("hidden", generator.normal(size=(3, 6)), generator.normal(size=3), "y")
    solved = {"x": (-2.0, 2.0), "hidden": (-12.0, 12.0), "y": (-40.0, 40.0)}
    return net.write(["x"], ["y"]), tiny.ranges(**{**solved, **ends})


def test_everything_is_int8_and_close_to_float() -> None:
    content, ranges = two_layers()
    quantized = integer_model(content, ranges)

    assert set(tiny.types(quantized).values()) == {"INT8", "INT32"}
    x = GENERATOR.uniform(-2, 2, (4, 8)).astype(np.float32)
    error = tiny.run(quantized, x) - tiny.run(content, x)
    # half a step of the output, and the rounding of 8 inputs, 6 values between, and the weights
    assert np.abs(error).max() < 6 * 80 / 255


def test_scale_and_zero_point_span_the_range_and_zero() -> None:
    content, ranges = two_layers(x=(-1.0, 3.0), hidden=(2.0, 5.0), y=(-6.0, -4.0))
    quantized = integer_model(content, ranges)

    for name, low, high in (("x", -1.0, 3.0), ("hidden", 0.0, 5.0), ("y", -6.0, 0.0)):
        (scale,), (zero_point,) = tiny.scales(quantized, name)
        assert scale == np.float32((high - low) / 255)
        assert zero_point == round(-128 - low / scale)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e29, 1e29), min_size=2, max_size=2))
def test_every_range_gives_a_scale_that_holds_zero(ends: list[float]) -> None:
    content, ranges = two_layers(hidden=(min(ends), max(ends)))

    (scale,), (zero_point,) = tiny.scales(integer_model(content, ranges), "hidden")
    assert np.isfinite(scale)
    assert scale >= 1e-12
    assert -128 <= zero_point <= 127


def test_bias_behind_a_dead_tensor_is_kept() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.linear("x", np.zeros((2, 2)), [0, 0], "dead")
    net.linear("dead", np.eye(3, 2), [-30.0, 0.5, 40.0], "y")
    content = net.write(["x"], ["y"])

    quantized = integer_model(content, tiny.ranges(x=(-1, 1), dead=(0, 0), y=(-30, 40)))
    y = tiny.run(quantized, np.ones((1, 2), np.float32))
    assert np.abs(y - [[-30.0, 0.5, 40.0]]).max() <= 0.5 * 70 / 255 + 1e-5


def test_bias_of_a_pruned_channel_is_kept() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.linear("x", [[1, 2], [0, 0], [1e-8, 0]], [0.25, -3.0, 3.0], "y")

    quantized = integer_model(net.write(["x"], ["y"]), tiny.ranges(x=(-1, 1), y=(-4, 4)))
    y = tiny.run(quantized, np.ones((1, 2), np.float32))
    assert np.abs(y - [[3.25, -3.0, 3.0]]).max() <= 8 / 255


def test_bias_of_shared_weights_fits_at_every_place() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.activation("small", 1, 2)
    net.linear("x", [[1e-8, 0], [1, 1]], [0.1, 0.1], "left")
    net.constant("right.bias", [50.0, -50.0])
    net.activation("right", 1, 2)
    net.operator(
        "FULLY_CONNECTED",
        ["small", "left.weight", "right.bias"],
        ["right"],
        "FullyConnectedOptions",
    )
    net.binary("ADD", "left", "right", "y")
    content = net.write(["x", "small"], ["y"])
    ends = {"x": (-1, 1), "small": (-0.01, 0.01), "left": (-3, 3), "right": (-50, 50)}

    quantized = integer_model(content, tiny.ranges(**ends, y=(-53, 53)))
    y = tiny.run(quantized, np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32))
    assert np.abs(y - [[50.1, -47.9]]).max() <= 1.5 * 106 / 255


def attention_like() -> bytes:
    """softmax(x + mask * -3.4e38), then a layer."""
    net = tiny.Tiny()
    net.activation("x", 2, 4)
    net.activation("padding", 2, 4)
    net.constant("lowest", -3.4e38)
    net.binary("MUL", "padding", "lowest", "bias")
    net.binary("ADD", "x", "bias", "scores")
    net.activation("shares", 2, 4)
    net.operator("SOFTMAX", ["scores"], ["shares"], "SoftmaxOptions", beta=1.0)
    net.linear("shares", np.eye(4), np.zeros(4), "y")
    return bytes(net.write(["x", "padding"], ["y"]))


# representative data without padding: nothing was ever masked
UNPADDED = {"x": (-4, 4), "padding": (0, 1), "bias": (0, 0), "scores": (-4, 4), "shares": (0, 1)}


def test_a_mask_works_though_no_representative_data_showed_it() -> None:
    content, ranges = attention_like(), tiny.ranges(**UNPADDED, y=(0, 1))
    quantized = integer_model(content, ranges)

    assert [types for name, types in tiny.types(quantized).items() if name in ("x", "y")] == [
        "INT8",
        "INT8",
    ]
    x = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    padding = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], np.float32)
    y = tiny.run(quantized, x, padding)
    assert (y[padding == 1] == 0).all()
    assert np.abs(y - tiny.run(content, x, padding)).max() <= 0.02
    assert float_operators(read_model(content), ranges) == {
        "bias": "touches the mask bias",
        "scores": "touches the mask bias",
        "shares": "touches the mask scores",
    }


def test_a_mask_that_was_seen_sets_no_scale() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.binary("MUL", "x", net.constant("two", [2.0, 2.0]), "seen")
    net.binary("ADD", "seen", "x", "sum")
    net.linear("sum", np.eye(2), np.zeros(2), "between")
    net.linear("between", np.eye(2), np.zeros(2), "y")
    content = net.write(["x"], ["y"])
    solved = tiny.ranges(x=(-1, 1), seen=(-2, 2), sum=(-3, 3), between=(-3, 3), y=(-3, 3))

    masked = Ranges(by_name=solved.by_name, dead=(), masks=("seen",))
    assert set(float_operators(read_model(content), masked)) == {"seen", "sum", "between"}
    assert float_operators(read_model(content), solved) == {}
    types = tiny.types(integer_model(content, masked))
    assert [types[name] for name in ("seen", "sum", "y")] == ["FLOAT32", "FLOAT32", "INT8"]


def test_what_was_never_finite_stays_in_float() -> None:
    content, ranges = two_layers()
    without = Ranges(
        by_name={name: item for name, item in ranges.by_name.items() if name != "hidden"},
        dead=(),
        masks=(),
    )
    quantized = integer_model(content, without)

    assert tiny.types(quantized)["hidden"] == "FLOAT32"
    assert float_operators(read_model(content), without) == {
        "hidden": "no finite number was seen in hidden",
        "y": "no finite number was seen in hidden",
    }
    x = GENERATOR.uniform(-2, 2, (4, 8)).astype(np.float32)
    assert np.abs(tiny.run(quantized, x) - tiny.run(content, x)).max() < 2 * 80 / 255


@pytest.mark.parametrize("name", ["x", "y"])
def test_an_end_that_cannot_be_int8_is_refused(name: str) -> None:
    content, ranges = two_layers()

    with pytest.raises(ExportFailed, match=f"{name}: .*a mask"):
        integer_model(content, Ranges(by_name=ranges.by_name, dead=(), masks=(name,)))
    unseen = {key: item for key, item in ranges.by_name.items() if key != name}
    with pytest.raises(ExportFailed, match=f"{name}: .*no finite value"):
        integer_model(content, Ranges(by_name=unseen, dead=(), masks=()))


def additions(*names: str) -> tuple[bytes, Ranges]:
    """A chain of ADDs that write tensors of these names."""
    net = tiny.Tiny()
    before = net.activation("x", 1, 4)
    net.constant("one", np.ones((1, 4)))
    for name in names:
        before = net.binary("ADD", before, "one", name)
    by_name = {name: Range(low=-1, high=9) for name in ("x", *names)}
    return net.write(["x"], [names[-1]]), Ranges(by_name=by_name, dead=(), masks=())


@pytest.mark.parametrize("kept", ["a/add", "a/add;1", "a/add;1;2", "(b)/add", "b"])
def test_only_the_named_operator_stays_in_float(kept: str) -> None:
    content, ranges = additions("a/add", "a/add;1", "a/add;1;2", "(b)/add", "b", "b/b", "y")
    quantized = integer_model(content, ranges, kept=[kept])

    types = tiny.types(quantized)
    assert [name for name in ranges.by_name if types[name] == "FLOAT32"] == [kept]
    x = np.array([[-1, 0, 1, 2]], np.float32)
    assert np.abs(tiny.run(quantized, x) - x - 7).max() <= 7 * 10 / 255


def test_ends_are_int8_beside_operators_that_stay_in_float() -> None:
    content, ranges = additions("first", "y")
    quantized = integer_model(content, ranges, kept=["first", "y"])

    assert tiny.kinds(quantized) == ["DEQUANTIZE", "ADD", "ADD", "QUANTIZE"]
    model = read_model(quantized)
    subgraph, (signature,) = model.subgraphs[0], model.signatureDefs
    (output,) = subgraph.outputs
    assert [tensor_name(subgraph.tensors[i]) for i in (*subgraph.inputs, output)] == ["x", "y"]
    assert [(item.name, item.tensorIndex) for item in signature.outputs] == [(b"y", output)]
    assert {tiny.types(quantized)[name] for name in ("x", "y")} == {"INT8"}


def test_max_pooling_with_padding_is_integer() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 4, 4, 1)
    net.activation("padded", 1, 6, 6, 1)
    net.activation("y", 1, 2, 2, 1)
    net.constant("sides", [[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    net.constant("lowest", -np.inf)
    net.operator("PADV2", ["x", "sides", "lowest"], ["padded"], "PadV2Options")
    window = {"strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3, "padding": 1}
    net.operator("MAX_POOL_2D", ["padded"], ["y"], "Pool2DOptions", **window)
    content = net.write(["x"], ["y"])
    ranges = tiny.ranges(x=(-9, -1), padded=(-9, -1), y=(-9, -1))

    quantized = integer_model(content, ranges)
    assert tiny.kinds(quantized) == ["PADV2", "MAX_POOL_2D"]
    x = GENERATOR.uniform(-9, -1, (1, 4, 4, 1)).astype(np.float32)
    assert np.abs(tiny.run(quantized, x) - tiny.run(content, x)).max() <= 0.5 * 9 / 255 + 1e-5


def test_product_by_a_constant_has_one_scale_and_is_not_zero() -> None:
    net = tiny.Tiny()
    net.activation("x", 2, 3, 4)
    net.activation("y", 2, 3, 2)
    factor = GENERATOR.normal(size=(2, 4, 2)) * [1.0, 5.0]
    net.constant("factor", factor)
    net.operator("BATCH_MATMUL", ["x", "factor"], ["y"], "BatchMatMulOptions")

    content = net.write(["x"], ["y"])
    quantized = integer_model(content, tiny.ranges(x=(-1, 1), y=(-30, 30)))
    x = GENERATOR.uniform(-1, 1, (2, 3, 4)).astype(np.float32)
    (scale,), (zero_point,) = tiny.scales(quantized, "factor")
    assert scale == pytest.approx(np.abs(factor).max() / 127, rel=1e-6)
    assert zero_point == 0
    assert np.abs(tiny.run(quantized, x) - x @ factor).max() < 60 / 255


def test_bytes_are_the_same_each_time_and_all_in_the_flatbuffer() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 512)
    net.linear("x", GENERATOR.normal(size=(512, 512)), np.zeros(512), "hidden")
    net.linear("hidden", GENERATOR.normal(size=(512, 512)), np.zeros(512), "y")
    content, ranges = net.write(["x"], ["y"]), tiny.ranges(x=(-1, 1), hidden=(-9, 9), y=(-9, 9))
    quantized = integer_model(content, ranges)

    assert integer_model(content, ranges) == quantized
    from ai_edge_litert import schema_py_generated as schema

    packed = schema.ModelT.InitFromPackedBuf(quantized, 0)
    assert all(buffer.offset == 0 for buffer in packed.buffers)
    sizes = sorted(0 if item.data is None else len(item.data) for item in packed.buffers)
    assert sizes == [0, 4 * 512, 512 * 512, 512 * 512]  # the biases are equal


def test_quantizing_is_silent(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, ranges = additions(*(f"layer.{index}/add" for index in range(150)))
    handlers = logging.getLogger().handlers[:]
    with caplog.at_level(logging.DEBUG):
        integer_model(content, ranges, kept=["layer.3/add"])

    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger().manager.disable == logging.NOTSET


def test_what_the_quantizer_refuses_names_operator_and_tensor() -> None:
    content, ranges = additions("a/add", "b/add")
    twice = content.replace(b"b/add", b"a/add")

    with pytest.raises(ExportFailed, match=r"tflite int8: ADD at a/add: .* not unique"):
        integer_model(twice, ranges)
