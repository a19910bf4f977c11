from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.runtimes.adapter import (
    FloatSession,
    decode_outputs,
    dequantize,
    encode_inputs,
    quantize,
)
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.vocabulary import Layout

COUNT = 64
SCALES = st.floats(2.0**-20, 2.0**10, width=32)
ZERO_POINTS = st.integers(-128, 127)
FLOATS = hnp.arrays(np.float32, (1, COUNT), elements=st.floats(width=32, allow_nan=False))


def make_spec(*, scale: float, zero_point: int, dtype: str = "int8", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, shape=(1, 4), dtype=dtype, scale=scale, zero_point=zero_point)


def contract_of(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Contract:
    return Contract(inputs=inputs, outputs=outputs)


@pytest.fixture(scope="session")
def convert(
    new_graph: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., np.ndarray]:
    """One operator of LiteRT, with its XNNPACK kernel: QUANTIZE or DEQUANTIZE."""
    path = tmp_path_factory.mktemp("convert") / "one.tflite"

    def run(values: np.ndarray, *, scale: float, zero_point: int) -> np.ndarray:
        graph = new_graph()
        shape = values.shape
        is_float = values.dtype == np.float32
        own = {"scale": scale, "zero_point": zero_point}
        real = graph.tensor("real", shape)
        stored = graph.tensor("stored", shape, "INT8", **own)
        source, target = (real, stored) if is_float else (stored, real)
        graph.operator("QUANTIZE" if is_float else "DEQUANTIZE", [source], target, version=2)
        path.write_bytes(graph.content([source], [target]))
        session = LiteRtRuntime().open(path)
        assert [node["op_name"] for node in session._interpreter._get_ops_details()][-1:] == [
            "DELEGATE"
        ]
        return next(iter(session.run({"real" if is_float else "stored": values}).values()))

    return run


def assert_same(found: np.ndarray, expected: np.ndarray, values: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    worst = np.unravel_index(apart.argmax(), apart.shape)
    assert not apart.any(), (worst, values[worst], found[worst], expected[worst])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(values=FLOATS, scale=SCALES, zero_point=ZERO_POINTS)
def test_quantizing_equals_the_runtimes_operator(
    convert: Callable[..., np.ndarray], values: np.ndarray, scale: float, zero_point: int
) -> None:
    found = quantize(values, make_spec(scale=scale, zero_point=zero_point))
    assert_same(found, convert(values, scale=scale, zero_point=zero_point), values)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    steps=hnp.arrays(np.int16, (1, COUNT), elements=st.integers(-300, 300)),
    scale=SCALES,
    zero_point=ZERO_POINTS,
)
def test_halves_go_where_the_runtimes_operator_puts_them(
    convert: Callable[..., np.ndarray], steps: np.ndarray, scale: float, zero_point: int
) -> None:
    values = (steps.astype(np.float32) + np.float32(0.5)) * np.float32(scale)
    found = quantize(values, make_spec(scale=scale, zero_point=zero_point))
    assert_same(found, convert(values, scale=scale, zero_point=zero_point), values)


def test_halves_go_to_the_even_neighbour() -> None:
    values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    found = quantize(values, make_spec(scale=1.0, zero_point=3))
    np.testing.assert_array_equal(found, np.array([1, 1, 3, 3, 5, 5], np.int8))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    stored=hnp.arrays(np.int8, (1, COUNT), elements=st.integers(-128, 127)),
    scale=SCALES,
    zero_point=ZERO_POINTS,
)
def test_dequantizing_equals_the_runtimes_operator(
    convert: Callable[..., np.ndarray], stored: np.ndarray, scale: float, zero_point: int
) -> None:
    found = dequantize(stored, make_spec(scale=scale, zero_point=zero_point))
    assert_same(found, convert(stored, scale=scale, zero_point=zero_point), stored)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scale=st.floats(2.0**-20, 2.0**10, width=32), data=st.data())
def test_a_stored_value_survives_the_round_trip(
    dtype: str, scale: float, data: st.DataObject
) -> None:
    limits = np.iinfo(dtype)
    zero_point = 0 if dtype == "int16" else data.draw(st.integers(limits.min, limits.max))
    elements = st.integers(limits.min, limits.max)
    stored = data.draw(hnp.arrays(np.dtype(dtype), (16,), elements=elements))
    spec = make_spec(scale=scale, zero_point=zero_point, dtype=dtype)
    np.testing.assert_array_equal(quantize(dequantize(stored, spec), spec), stored)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=FLOATS, scale=SCALES, zero_point=ZERO_POINTS)
def test_a_value_in_range_moves_by_half_a_step_at_most(
    values: np.ndarray, scale: float, zero_point: int
) -> None:
    spec = make_spec(scale=scale, zero_point=zero_point)
    low, high = scale * (-128 - zero_point), scale * (127 - zero_point)
    inside = np.clip(values.astype(np.float64), low, high).astype(np.float32)
    apart = np.abs(dequantize(quantize(inside, spec), spec).astype(np.float64) - inside)
    # half a step, and float32 roundings of numbers up to 255 steps large
    assert apart.max() <= scale * (0.5 + 4 * 255 * 2.0**-24)


@pytest.mark.parametrize(("zero_point", "low", "high"), [(0, -128, 127), (127, -128, 127)])
def test_what_lies_beyond_saturates(zero_point: int, low: int, high: int) -> None:
    values = np.array([-np.inf, -3e38, -1e6, 1e6, 3e38, np.inf], np.float32)
    found = quantize(values, make_spec(scale=0.01, zero_point=zero_point))
    np.testing.assert_array_equal(found, np.array([low] * 3 + [high] * 3, np.int8))


def test_nan_is_refused_by_the_inputs_name() -> None:
    values = {"x": np.array([[0, np.nan, 1, np.nan]], np.float32)}
    spec = make_spec(scale=0.1, zero_point=0)
    with pytest.raises(ConfigurationError, match=r"'x'.*2 of 4 values NaN"):
        encode_inputs(values, [TensorSpec(name="x", shape=(1, 4))], contract_of(spec))


def test_an_image_is_transposed_then_quantized() -> None:
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    model = TensorSpec(name="image", shape=(1, 2, 3, 4), layout=Layout.NCHW)
    own = TensorSpec(
        name="image",
        shape=(1, 3, 4, 2),
        layout=Layout.NHWC,
        dtype="int8",
        scale=0.5,
        zero_point=-7,
    )
    found = encode_inputs({"image": image}, [model], contract_of(own))["image"]
    assert found.shape == own.shape
    assert found.dtype == np.int8
    assert found.flags.c_contiguous
    for channel in range(2):
        np.testing.assert_array_equal(found[0, ..., channel], image[0, channel] * 2 - 7)


def test_an_image_of_the_same_layout_stays() -> None:
    image = np.zeros((1, 2, 3, 4), np.float32)
    spec = TensorSpec(name="image", shape=(1, 2, 3, 4), layout=Layout.NHWC)
    assert encode_inputs({"image": image}, [spec], contract_of(spec))["image"] is image


def test_token_ids_become_narrower_without_change() -> None:
    ids = np.array([[0, 101, -1, 2**31 - 1]], np.int64)
    model = TensorSpec(name="ids", shape=(1, 4), dtype="int64")
    own = TensorSpec(name="ids", shape=(1, 4), dtype="int32")
    found = encode_inputs({"ids": ids}, [model], contract_of(own))["ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ids)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_an_id_that_does_not_fit_is_refused(value: int) -> None:
    ids = np.array([[1, value]], np.int64)
    model = TensorSpec(name="ids", shape=(1, 2), dtype="int64")
    own = TensorSpec(name="ids", shape=(1, 2), dtype="int32")
    with pytest.raises(ConfigurationError, match=rf"'ids'.*found {value}"):
        encode_inputs({"ids": ids}, [model], contract_of(own))


def test_integers_without_a_scale_are_no_float_input() -> None:
    own = TensorSpec(name="x", shape=(1, 4), dtype="int8")
    with pytest.raises(ExportFailed, match="expected int8, found float32"):
        encode_inputs({"x": np.zeros((1, 4), np.float32)}, [own], contract_of(own))


def test_outputs_are_dequantized_and_images_turned_back() -> None:
    stored = np.arange(24, dtype=np.int8).reshape(1, 3, 4, 2)
    spec = TensorSpec(
        name="mask",
        shape=(1, 3, 4, 2),
        layout=Layout.NHWC,
        dtype="int8",
        scale=0.5,
        zero_point=2,
    )
    plain = TensorSpec(name="ids", shape=(1, 2), dtype="int32")
    ids = np.array([[3, 4]], np.int32)
    contract = contract_of(outputs=(spec, plain))
    found = decode_outputs({"mask": stored, "ids": ids}, contract)
    assert found["mask"].shape == (1, 2, 3, 4)
    assert found["mask"].dtype == np.float32
    for channel in range(2):
        expected = (stored[0, ..., channel].astype(np.float32) - 2) / 2
        np.testing.assert_array_equal(found["mask"][0, channel], expected)
    assert found["ids"] is ids


class Echo:
    """Keeps what it was given, and gives `outputs`."""

    def __init__(self, outputs: dict[str, np.ndarray]) -> None:
        self.outputs = outputs
        self.seen: dict[str, np.ndarray] = {}

    def run(self, inputs: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - any mapping
        self.seen = dict(inputs)
        return self.outputs


def test_where_both_sides_agree_arrays_pass_through_as_they_are() -> None:
    image = np.ones((1, 2, 3, 4), np.float32)
    ids = np.ones((1, 4), np.int64)
    specs = (
        TensorSpec(name="image", shape=(1, 2, 3, 4), layout=Layout.NCHW),
        TensorSpec(name="ids", shape=(1, 4), dtype="int64"),
    )
    output = TensorSpec(name="logits", shape=(1, 2))
    echo = Echo({"logits": np.ones((1, 2), np.float32), "inner": np.ones((1, 2, 2, 2))})
    session = FloatSession(echo, specs, contract_of(*specs, outputs=(output,)))
    found = session.run({"image": image, "ids": ids})
    assert echo.seen["image"] is image
    assert echo.seen["ids"] is ids
    assert found.keys() == echo.outputs.keys()
    assert all(found[name] is value for name, value in echo.outputs.items())


def test_a_float_session_takes_and_gives_what_the_model_does(net: Any, net_file: Path) -> None:  # noqa: ANN401
    import torch

    image = np.random.default_rng(3).standard_normal((1, 2, 5, 5)).astype(np.float32)
    own = TensorSpec(name="image", shape=(1, 5, 5, 2), layout=Layout.NHWC)
    model = TensorSpec(name="image", shape=(1, 2, 5, 5), layout=Layout.NCHW)
    logits = TensorSpec(name="logits", shape=(1, 4))
    contract = contract_of(own, outputs=(logits,))
    found = FloatSession(LiteRtRuntime().open(net_file), [model], contract).run({"image": image})
    with torch.no_grad():
        expected = net.tensors(torch.tensor(image))["logits"].numpy()
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)
