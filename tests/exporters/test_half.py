import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.activations import observed_tensors
from edgeship.exporters.half import HalfGraph, half_graph, output_rounding
from edgeship.exporters.half_placement import Why
from edgeship.exporters.onnx.half_notes import half_notes

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
SENTINEL = 1e30
MASK = float(np.finfo(np.float32).min)
TWO_LAYERS = """
net (float[2, 8] x) => (float[2, 4] out)
{
    a = MatMul(x, w1)
    b = Relu(a)
    out = MatMul(b, w2)
}
"""
SCALED = """
net (float[2, 8] x) => (float[2, 8] out)
{
    big = MatMul(x, w1)
    sum = Add(big, x)
    small = Mul(sum, k)
    out = MatMul(small, w2)
}
"""
ATTENTION = """
net (float[1, 4, 8] x, bool[1, 1, 4] seen) => (float[1, 4, 8] out)
{
    q = MatMul(x, w1)
    t = Transpose<perm = [0, 2, 1]>(x)
    s = MatMul(q, t)
    bias = Where(seen, zero, gone)
    wide = Expand(bias, shape)
    m = Add(s, wide)
    p = Softmax<axis = -1>(m)
    out = MatMul(p, x)
}
"""
RENDER = """
import sys
import onnx
from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.activations import observed_tensors
from edgeship.exporters.half import half_graph
proto = onnx.load(sys.argv[1])
by_name = {name: Range(low=-3, high=5) for name in observed_tensors(proto)}
half = half_graph(proto, Ranges(by_name=by_name, dead=(), masks=()), ["n_q", "n_out"])
open(sys.argv[2], "wb").write(half.proto.SerializeToString(deterministic=True))
"""


def graph(text: str, **constants: np.ndarray | float) -> onnx.ModelProto:
    """The text's graph, with nodes named after what they give; integers stay integers."""
    proto = onnx.parser.parse_model(HEADER + text)
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    for name, values in constants.items():
        array = np.asarray(values)
        kind = np.int64 if array.dtype == np.int64 else np.float32
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(kind), name))
    onnx.checker.check_model(proto)
    return proto


def draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape) for name, shape in shapes.items()}


def two_layers() -> onnx.ModelProto:
    return graph(TWO_LAYERS, **draw(0, w1=(8, 8), w2=(8, 4)))


def inputs_of(proto: onnx.ModelProto, seed: int = 5) -> dict[str, np.ndarray]:
    """Normal floats; booleans all true."""
    generator = np.random.default_rng(seed)
    found = {}
    for value in proto.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
        found[value.name] = (
            generator.standard_normal(shape).astype(np.float32) if is_float else np.ones(shape, "?")
        )
    return found


def run(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """On ONNX Runtime's CPU: float16 is computed in float32."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, dict(inputs))[0])


def simulate(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """In numpy, whose float16 arithmetic is float16: it overflows where a GPU's would."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(next(iter(ReferenceEvaluator(proto).run(None, dict(inputs)))))


def ranges_of(proto: onnx.ModelProto, *inputs: Mapping[str, np.ndarray]) -> Ranges:
    """Of the observed tensors on `inputs`, else on one draw; by numpy, not by edgeship."""
    names = observed_tensors(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    given = {value.name for value in proto.graph.input}
    del copy.graph.output[:]
    wanted = [name for name in names if name not in given]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for feed in inputs or (inputs_of(proto),):
        found = map(np.asarray, ReferenceEvaluator(copy).run(None, dict(feed)))
        values = {**feed, **dict(zip(wanted, found, strict=True))}
        for name in names:
            seen[name].append(values[name].ravel())
    joined = {name: np.concatenate(items) for name, items in seen.items()}
    kept = {name: items[np.abs(items) < SENTINEL] for name, items in joined.items()}
    return Ranges(
        by_name={
            name: Range(low=float(items.min()), high=float(items.max()))
            for name, items in kept.items()
            if items.size
        },
        dead=(),
        masks=tuple(name for name, items in joined.items() if (np.abs(items) >= SENTINEL).any()),
    )


def mild(proto: onnx.ModelProto) -> Ranges:
    """As if every tensor had stayed within one."""
    by_name = {name: Range(low=-1, high=1) for name in observed_tensors(proto)}
    return Ranges(by_name=by_name, dead=(), masks=())


def halve(proto: onnx.ModelProto, ranges: Ranges | None = None, *ruled: str) -> HalfGraph:
    """The float16 graph; it is valid, loads, and keeps the border."""
    before = proto.SerializeToString(deterministic=True)
    half = half_graph(proto, ranges or ranges_of(proto), ruled)
    assert proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(half.proto, full_check=True)
    assert list(half.proto.graph.input) == list(proto.graph.input)
    assert list(half.proto.graph.output) == list(proto.graph.output)
    run(half.proto, inputs_of(proto))
    return half


def casts(proto: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in proto.graph.node if node.op_type == "Cast"]


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}


def test_weights_and_arithmetic_are_float16_and_the_border_is_float32() -> None:
    proto = two_layers()
    half = halve(proto)
    assert half.stays == {}
    assert casts(half.proto) == ["x_float16", "out"]
    for name in ("w1", "w2"):
        expected = weights(proto)[name].astype(np.float16)
        assert np.array_equal(weights(half.proto)[f"{name}_float16"], expected)
    assert len(half.proto.graph.initializer) == 2
    inputs = inputs_of(proto)
    # 8 products and two roundings of each: some 2**-11 of the largest value
    found, expected = simulate(half.proto, inputs), simulate(proto, inputs)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 8 * 2**-11 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def test_a_tensor_that_both_sides_use_is_cast_once() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out, float[2, 8] p)
    {
        a = MatMul(x, w)
        p = Softmax(a)
        r = ReduceMax(a, axes)
        b = Mul(p, a)
        c = MatMul(p, w)
        d = MatMul(p, w)
        e = Add(c, d)
        f = Add(e, b)
        out = Add(f, r)
    }
    """
    proto = graph(text, **draw(1, w=(8, 8)), axes=np.array([1]))
    half = halve(proto)
    assert sorted(half.stays) == ["n_p"]
    assert sorted(casts(half.proto)) == ["a", "out", "p_float16", "x_float16"]
    names = [name for node in half.proto.graph.node for name in (node.name, *node.output)]
    assert len(names) == len(set(names))


def planted() -> onnx.ModelProto:
    """A product near 128 000, brought back by a later factor."""
    values = draw(2, w2=(8, 8))
    return graph(SCALED, w1=np.full((8, 8), 16000.0), k=np.full(8, 1e-4), **values)


def test_planted_overflow_is_infinite_without_the_rule_and_unseen_on_the_cpu() -> None:
    proto = planted()
    inputs = {"x": np.ones((2, 8), np.float32)}
    naive = halve(proto, mild(proto)).proto
    assert not np.isfinite(simulate(naive, inputs)).all()
    cpu = run(naive, inputs)
    assert np.isfinite(cpu).all()


def test_planted_overflow_stays_in_float32_and_is_said() -> None:
    proto = planted()
    inputs = {"x": np.ones((2, 8), np.float32)}
    half = halve(proto, ranges_of(proto, inputs))
    assert {name for name, stay in half.stays.items() if stay.why is Why.RANGE} == {
        "n_big",
        "n_sum",
        "n_small",
    }
    found, expected = simulate(half.proto, inputs), simulate(proto, inputs)
    assert np.abs(found - expected).max() <= 2**-10 * np.abs(expected).max()
    notes = half_notes(proto, half)
    assert (
        "in float32 for the size of their values: n_big (big reaches 1.28e+05), "
        "n_sum (big reaches 1.28e+05), n_small (sum reaches 1.28e+05)"
    ) in notes
    assert "computed in float32: 1 Add, 1 MatMul, 1 Mul" in notes
    assert (
        "ONNX Runtime's CPU computes in float32: overflow was judged from representative data"
    ) in notes


@pytest.mark.parametrize(
    ("absmax", "stays"),
    [
        (65504 / 4, False),
        (65504 / 4 + 1, True),
        (2.0**-14, False),
        (2.0**-14 * 0.99, True),
        (0.0, False),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_limits_of_what_is_seen(absmax: float, stays: bool, sign: int) -> None:
    proto = two_layers()
    seen = mild(proto)
    ends = sorted((0.0, sign * absmax))
    ranges = Ranges(
        by_name={**seen.by_name, "out": Range(low=ends[0], high=ends[1])}, dead=(), masks=()
    )
    assert ("n_out" in half_graph(proto, ranges, ()).stays) == stays


def test_what_a_policy_cut_off_overflows_all_the_same() -> None:
    proto = two_layers()
    cut = replace(mild(proto), seen={"out": Range(low=-1, high=65504 / 4 + 1)})
    stay = halve(proto, cut).stays["n_out"]
    assert (stay.why, stay.tensor) == (Why.RANGE, "out")
    rounding = output_rounding(proto, cut)["out"]
    assert rounding == pytest.approx((65504 / 4 + 1) / 256)


def test_what_was_never_seen_stays_in_float32() -> None:
    proto = two_layers()
    by_name = {name: item for name, item in mild(proto).by_name.items() if name != "out"}
    half = halve(proto, Ranges(by_name=by_name, dead=(), masks=()))
    assert half.stays["n_out"].why is Why.RANGE
    assert any("nothing was seen of out" in note for note in half_notes(proto, half))


def test_a_layer_whose_relu_reaches_too_far_stays_though_only_the_relu_is_observed() -> None:
    proto = two_layers()
    assert "a" not in observed_tensors(proto)
    by_name = {**mild(proto).by_name, "b": Range(low=0, high=1e5)}
    stays = halve(proto, Ranges(by_name=by_name, dead=(), masks=())).stays
    assert sorted(stays) == ["n_a", "n_b", "n_out"]


@pytest.mark.parametrize("value", [1e-9, -1e-9, 1e-7, 5e-8, 70000.0, -3.4e38, 1e-42])
def test_a_constant_that_float16_does_not_hold_stays_as_it_is_and_is_said(value: float) -> None:
    proto = graph(SCALED, **draw(3, w1=(8, 8), w2=(8, 8)), k=value)
    half = halve(proto, mild(proto))
    assert half.stays["n_small"].why is Why.CONSTANT
    assert weights(half.proto)["k"] == np.float32(value)
    assert "k_float16" not in weights(half.proto)
    assert any(f"n_small (k holds {value:.3g})" in note for note in half_notes(proto, half))


@pytest.mark.parametrize("value", [0.0, 0.5, 65504.0, 2.0**-24, -(2.0**-14), np.inf, -np.inf])
def test_a_constant_that_float16_holds_is_float16(value: float) -> None:
    proto = graph(SCALED, **draw(3, w1=(8, 8), w2=(8, 8)), k=value)
    half = half_graph(proto, mild(proto), ())
    assert half.stays == {}
    assert weights(half.proto)["k_float16"] == value


def test_a_constant_in_a_node_is_judged_too() -> None:
    text = SCALED.replace("    small", "    k = Constant<value = float {1e-9}>()\n    small")
    half = halve(graph(text, **draw(3, w1=(8, 8), w2=(8, 8))))
    assert half.stays["n_small"].why is Why.CONSTANT


def test_a_tiny_factor_that_a_later_one_undoes_keeps_its_result() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        a = MatMul(x, w)
        tiny = Mul(a, k)
        flat = Identity(tiny)
        back = Div(flat, k)
        out = MatMul(back, w)
    }
    """
    proto = graph(text, **draw(4, w=(8, 8)), k=1e-9)
    inputs = inputs_of(proto)
    half = halve(proto)
    found, expected = simulate(half.proto, inputs), simulate(proto, inputs)
    assert np.abs(found - expected).max() <= 8 * 2**-11 * np.abs(expected).max()
    assert casts(half.proto) == ["x_float16", "a", "back_float16", "out"]


CONV = """
net (float[1, 2, 5, 5] x) => (float[1, 3, 3, 3] out) { out = Conv(x, w, b) }
"""


@pytest.mark.parametrize(("scale", "stays"), [(1e-8, True), (1e-3, False)])
def test_a_channel_that_would_vanish_keeps_its_layer(scale: float, stays: bool) -> None:
    values = draw(5, w=(3, 2, 3, 3), b=(3,))
    values["w"][1] = np.sign(values["w"][1]) * scale
    half = halve(graph(CONV, **values))
    assert ("n_out" in half.stays) == stays


def test_single_weights_that_vanish_beside_larger_ones_are_counted() -> None:
    values = draw(5, w=(3, 2, 3, 3), b=(3,))
    values["w"][:, 0, 0, 0] = [1e-9, -2e-8, 0.0]
    proto = graph(CONV, **values)
    half = halve(proto)
    assert half.stays == {}
    assert half.vanished == 2
    assert half_notes(proto, half)[-1].startswith("2 weights below 6e-8 are 0")


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("net (float[1, 6] x) => (float[1, 6] out) { out = MatMul(x, w) }", 1),
        ("net (float[1, 6] x) => (float[1, 6] out) { out = Gemm(x, w) }", 1),
        ("net (float[1, 6] x) => (float[1, 6] out) { out = Gemm<transB = 1>(x, w) }", 0),
        ("net (int64[2] x) => (float[2, 6] out) { out = Gather(w, x) }", 0),
        ("net (int64[2] x) => (float[6, 2] out) { out = Gather<axis = 1>(w, x) }", 1),
    ],
)
def test_channels_are_those_of_the_operator(text: str, axis: int) -> None:
    for tiny_axis in (0, 1):
        values = draw(6, w=(6, 6))
        values["w"][(slice(None),) * tiny_axis + (2,)] = 1e-8
        proto = graph(text, **values)
        assert ("n_out" in half_graph(proto, mild(proto), ()).stays) == (tiny_axis == axis)


def attention(gone: float = MASK) -> onnx.ModelProto:
    shape = np.array([1, 4, 4])
    return graph(ATTENTION, **draw(7, w1=(8, 8)), zero=0.0, gone=gone, shape=shape)


@pytest.mark.parametrize("gone", [MASK, -1e9])
@pytest.mark.parametrize("is_padding_seen", [True, False])
@pytest.mark.parametrize("padded", [0, 2, 4])
def test_a_mask_is_not_clipped_and_gives_no_nan(
    gone: float, is_padding_seen: bool, padded: int
) -> None:
    proto = attention(gone)
    inputs = inputs_of(proto)
    masked = {**inputs, "seen": np.arange(4).reshape(1, 1, 4) < 4 - padded}
    shown = {**inputs, "seen": np.arange(4).reshape(1, 1, 4) < 2} if is_padding_seen else inputs
    half = halve(proto, ranges_of(proto, shown))
    assert weights(half.proto)["gone"] == np.float32(gone)
    assert {"n_bias", "n_wide", "n_m", "n_p"} <= half.stays.keys()
    assert half.stays["n_out" if "n_out" in half.stays else "n_m"].why is Why.MASK
    for evaluate in (simulate, run):
        found, expected = evaluate(half.proto, masked), evaluate(proto, masked)
        assert np.isfinite(found).all()
        # scores of 8 products move by their float16 rounding, and softmax by as much
        assert np.abs(found - expected).max() <= 32 * 2**-11 * np.abs(expected).max()
    assert any("a mask, which is not clipped: n_wide, n_m" in x for x in half_notes(proto, half))


@pytest.mark.parametrize(
    "expression",
    [
        "Softmax(a)",
        "LogSoftmax(a)",
        "LayerNormalization(a, g)",
        "ReduceMean(a, axes)",
        "ReduceSum(a, axes)",
        "ReduceL2(a, axes)",
        "Pow(a, two)",
        "Exp(a)",
        "Softplus(a)",
        "Sin(a)",
        "Reciprocal(a)",
        "Div(a, b)",
    ],
)
def test_sensitive_operators_stay_in_float32(expression: str) -> None:
    text = (
        "net (float[2, 8] x) => (float[2, n] out)\n"
        f"{{ a = MatMul(x, w)\n b = MatMul(x, w)\n y = {expression}\n z = Add(y, b)\n"
        " out = MatMul(z, w) }"
    )
    values = {**draw(8, w=(8, 8)), "g": np.ones(8), "two": np.array(2.0), "axes": np.array([1])}
    used = {name: item for name, item in values.items() if name == "w" or f", {name})" in text}
    half = halve(graph(text.replace("n]", "8]"), **used))
    assert sorted(half.stays) == ["n_y"]
    assert half.stays["n_y"].why is Why.OPERATOR


def test_a_division_by_a_constant_is_float16() -> None:
    text = "net (float[2, 8] x) => (float[2, 8] out) { a = MatMul(x, w)\n out = Div(a, two) }"
    assert halve(graph(text, **draw(8, w=(8, 8)), two=2.0)).stays == {}


def test_what_lies_between_float32_nodes_stays_and_saves_casts() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        a = MatMul(x, w)
        mean = ReduceMean(a, axes)
        centred = Softmax(a)
        d = Sub(centred, mean)
        flat = Reshape(d, shape)
        is_up = Greater(d, mean)
        square = Pow(flat, two)
        root = Sqrt(square)
        chosen = Where(is_up, root, a)
        out = MatMul(chosen, w)
    }
    """
    proto = graph(text, **draw(9, w=(8, 8)), axes=np.array([1]), two=2.0, shape=np.array([2, 8]))
    half = halve(proto)
    between = {name for name, stay in half.stays.items() if stay.why is Why.NEIGHBOURS}
    assert between == {"n_d", "n_flat", "n_is_up"}
    assert sorted(casts(half.proto)) == ["a", "out", "square_float16", "x_float16"]


def test_an_input_that_must_be_float32_stays_so_in_a_float16_node() -> None:
    text = """
    net (float[1, 2, 4, 4] x) => (float[1, 2, 8, 8] out)
    {
        a = Conv(x, w)
        out = Resize<mode = "linear">(a, none, scales)
    }
    """
    text = text.replace("none", "")
    half = halve(graph(text, **draw(10, w=(2, 2, 1, 1)), scales=np.array([1.0, 1, 2, 2])))
    assert half.stays == {}
    assert weights(half.proto)["scales"].dtype == np.float32


def test_branches_find_the_tensors_around_them_in_float32() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        a = MatMul(x, w)
        s = ReduceMax<keepdims = 0>(a)
        is_up = Greater(s, zero)
        b = If (is_up) <
            then_branch = yes () => (float[2, 8] y) { y = Add(a, bias) },
            else_branch = no () => (float[2, 8] z) { z = Neg(a) }
        >
        out = MatMul(b, w)
    }
    """
    proto = graph(text, **draw(11, w=(8, 8), bias=(8,)), zero=0.0)
    half = halve(proto)
    assert sorted(half.stays) == ["n_b"]
    assert weights(half.proto)["bias"].dtype == np.float32
    inputs = inputs_of(proto)
    found, expected = run(half.proto, inputs), run(proto, inputs)
    assert np.abs(found - expected).max() <= 8 * 2**-11 * np.abs(expected).max()


def test_a_rule_keeps_its_nodes() -> None:
    proto = two_layers()
    half = halve(proto, None, "n_out")
    assert {name: stay.why for name, stay in half.stays.items()} == {"n_out": Why.RULE}
    assert casts(half.proto) == ["x_float16", "b"]
    assert weights(half.proto)["w2"].dtype == np.float32
    everything = halve(proto, None, "n_a", "n_b", "n_out").proto
    assert np.array_equal(run(everything, inputs_of(proto)), run(proto, inputs_of(proto)))
    assert casts(everything) == []


def test_a_weight_that_both_sides_read_is_there_in_both_types() -> None:
    text = "net (float[2, 8] x) => (float[2, 8] out) { a = MatMul(x, w)\n out = MatMul(a, w) }"
    half = halve(graph(text, **draw(12, w=(8, 8))), None, "n_a")
    assert {name: str(item.dtype) for name, item in weights(half.proto).items()} == {
        "w": "float32",
        "w_float16": "float16",
    }


def test_names_that_are_taken_are_left_alone() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        x_float16 = MatMul(x, w)
        out = MatMul(x_float16, w)
    }
    """
    proto = graph(text, **draw(13, w=(8, 8)))
    half = halve(proto)
    inputs = inputs_of(proto)
    found, expected = run(half.proto, inputs), run(proto, inputs)
    assert np.abs(found - expected).max() <= 8 * 2**-11 * np.abs(expected).max()


def test_an_output_may_differ_by_a_256th_of_what_was_seen() -> None:
    proto = two_layers()
    by_name = {"out": Range(low=-8, high=2), "x": Range(low=0, high=1)}
    steps = output_rounding(proto, Ranges(by_name=by_name, dead=(), masks=()))
    assert steps == {"out": 8 / 256}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path, seed: str) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    proto = attention()
    onnx.save(proto, source)
    by_name = {name: Range(low=-3, high=5) for name in observed_tensors(proto)}
    half = half_graph(proto, Ranges(by_name=by_name, dead=(), masks=()), ["n_q", "n_out"])
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", RENDER, str(source), str(target)]
    subprocess.run(command, check=True, env=environment)
    assert target.read_bytes() == half.proto.SerializeToString(deterministic=True)
