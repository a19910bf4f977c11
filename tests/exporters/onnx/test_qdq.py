import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgeship.calibration.ranges import Range, Ranges
from edgeship.digests import file_sha256
from edgeship.errors import ExportFailed
from edgeship.exporters.activations import observed_tensors
from edgeship.exporters.onnx.census import float_nodes, output_steps
from edgeship.exporters.onnx.qdq import quantized_graph

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
CHAIN = """
net (float[1, 2, 6, 6] x) => (float[1, 5] out)
{
    c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv(r1, w2, b2)
    f = Flatten(c2)
    out = Gemm<transB = 1>(f, w3, b3)
}
"""
THREE_CONVS = """
net (float[1, 2, 6, 6] x) => (float[1, 4, 6, 6] out)
{
    c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    r1 = Relu(c1)
    kept = Conv<pads = [1, 1, 1, 1]>(r1, w2, b2)
    r2 = Relu(kept)
    out = Conv(r2, w3, b3)
}
"""
MIXER = """
net (float[1, 6, 8] x) => (float[1, 6, 8] out)
{
    m1 = MatMul(x, w1)
    q = Add(m1, b1)
    k = MatMul(x, w2)
    t = Transpose<perm = [0, 2, 1]>(k)
    s = MatMul(q, t)
    p = Softmax<axis = -1>(s)
    v = MatMul(p, x)
    out = Add(v, x)
}
"""
RENDER = """
import sys
import onnx
from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.activations import observed_tensors
from edgeship.exporters.onnx.qdq import quantized_graph
proto = onnx.load(sys.argv[1])
ranges = Ranges(
    by_name={name: Range(low=-3, high=5) for name in observed_tensors(proto)}, dead=(), masks=()
)
quantized = quantized_graph(
    proto, ranges, is_activation_signed=False, reduce_range=False, kept=["n_c2", "n_c1"]
)
open(sys.argv[2], "wb").write(quantized.SerializeToString(deterministic=True))
"""


def graph(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """The text's graph, with nodes named after what they give."""
    proto = onnx.parser.parse_model(HEADER + text)
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    for name, values in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.checker.check_model(proto)
    return proto


def draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape) for name, shape in shapes.items()}


def chain(seed: int = 0) -> onnx.ModelProto:
    weights = draw(seed, w1=(3, 2, 3, 3), b1=(3,), w2=(4, 3, 1, 1), b2=(4,), w3=(5, 144), b3=(5,))
    return graph(CHAIN, **weights)


def three_convs() -> onnx.ModelProto:
    """The kept layer's channels differ by 10 000 in size: one scale for all would ruin it.

    The next layer makes up for that, so that each channel counts.
    """
    weights = draw(0, w1=(4, 2, 3, 3), b1=(4,), w2=(4, 4, 3, 3), b2=(4,), w3=(4, 4, 1, 1), b3=(4,))
    sizes = np.array([100, 1, 0.01, 0.1])
    weights["w2"] *= sizes.reshape(4, 1, 1, 1)
    weights["b2"] *= sizes
    weights["w3"] /= sizes.reshape(1, 4, 1, 1)
    return graph(THREE_CONVS, **weights)


def mixer() -> onnx.ModelProto:
    return graph(MIXER, **draw(1, w1=(8, 8), b1=(8,), w2=(8, 8)))


def input_of(proto: onnx.ModelProto, seed: int = 5) -> np.ndarray:
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(
    proto: onnx.ModelProto,
    x: np.ndarray,
    *,
    is_optimized: bool = True,
    disabled: Sequence[str] = (),
) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(disabled),
    )
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def values_of(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every observed tensor of a float graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    names = [name for name in observed_tensors(proto) if name != "x"]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return {"x": x, **dict(zip(names, session.run(None, {"x": x}), strict=True))}


def ranges_of(proto: onnx.ModelProto, sample: np.ndarray, **more: Range) -> Ranges:
    values = values_of(proto, sample)
    solved = {
        name: Range(low=float(item.min()), high=float(item.max())) for name, item in values.items()
    }
    return Ranges(by_name={**solved, **more}, dead=(), masks=())


def quantize(
    proto: onnx.ModelProto,
    ranges: Ranges | None = None,
    *,
    is_activation_signed: bool = False,
    reduce_range: bool = False,
    kept: Sequence[str] = (),
) -> onnx.ModelProto:
    return quantized_graph(
        proto,
        ranges or ranges_of(proto, input_of(proto)),
        is_activation_signed=is_activation_signed,
        reduce_range=reduce_range,
        kept=kept,
    )


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def marks_on_activations(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every QuantizeLinear: weights are stored quantized."""
    return [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]


def quantized_names(proto: onnx.ModelProto) -> set[str]:
    return {
        node.input[0].removesuffix("_QuantizeLinear_Input") for node in marks_on_activations(proto)
    }


# The reference: float64 numpy, from ONNX's definitions of QuantizeLinear and DequantizeLinear.


@dataclass(frozen=True, kw_only=True)
class Grid:
    """8-bit integers over a range that holds 0."""

    scale: float
    zero_point: int
    lowest: int

    def rounded(self, values: np.ndarray) -> np.ndarray:
        steps = np.rint(values / self.scale) + self.zero_point
        stored: np.ndarray = np.clip(steps, self.lowest, self.lowest + 255)
        return (stored - self.zero_point) * self.scale


def grid_of(range_: Range, *, is_signed: bool) -> Grid:
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    scale, lowest = float(np.float32((high - low) / 255)), -128 if is_signed else 0
    return Grid(scale=scale, zero_point=int(np.rint(lowest - low / scale)), lowest=lowest)


def rounded_weight(weight: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric, a scale for each output channel (axis 0); the values and the scales."""
    flat = np.abs(weight.astype(np.float64)).reshape(len(weight), -1)
    scales = flat.max(axis=1) / levels
    shape = (-1, *(1,) * (weight.ndim - 1))
    return np.rint(weight / scales.reshape(shape)) * scales.reshape(shape), scales


def conv(x: np.ndarray, weight: np.ndarray, pad: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    result: np.ndarray = np.einsum("nchwij,ocij->nohw", windows, weight)
    return result


def reference(
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    x: np.ndarray,
    *,
    is_signed: bool,
    levels: int,
) -> np.ndarray:
    """`CHAIN` as QDQ says it: round x, weights, biases and every result."""
    weights = constants(proto)
    grids = {name: grid_of(item, is_signed=is_signed) for name, item in ranges.items()}

    def layer(index: int, source: str) -> tuple[np.ndarray, np.ndarray]:
        weight, scales = rounded_weight(weights[f"w{index}"], levels)
        step = scales * grids[source].scale
        return weight, np.rint(weights[f"b{index}"] / step) * step

    value = grids["x"].rounded(x.astype(np.float64))
    weight, bias = layer(1, "x")
    value = grids["r1"].rounded(np.maximum(conv(value, weight, 1) + bias.reshape(1, -1, 1, 1), 0))
    weight, bias = layer(2, "r1")
    value = grids["c2"].rounded(conv(value, weight, 0) + bias.reshape(1, -1, 1, 1))
    weight, bias = layer(3, "c2")
    result: np.ndarray = value.reshape(1, -1) @ weight.T + bias
    return grids["out"].rounded(result)


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("reduce_range", "levels"), [(False, 127), (True, 64)])
@pytest.mark.parametrize("seed", range(3))
def test_a_conv_linear_net_equals_the_numpy_reference_to_one_step(
    is_signed: bool, reduce_range: bool, levels: int, seed: int
) -> None:
    proto = chain(seed)
    ranges = ranges_of(proto, input_of(proto))
    x = 1.2 * input_of(proto, seed=seed + 10)  # also beyond the range
    quantized = quantize(proto, ranges, is_activation_signed=is_signed, reduce_range=reduce_range)
    expected = reference(proto, ranges.by_name, x, is_signed=is_signed, levels=levels)
    # without optimisations: what the file says, whatever the CPU's integer products do
    found = run(quantized, x, is_optimized=False)
    steps = np.abs(found - expected) / output_steps(quantized)["out"]
    assert steps.max() <= 1.01, (steps.max(), int(steps.argmax()))


@pytest.mark.parametrize("seed", range(3))
def test_the_runtimes_integer_kernels_equal_the_numpy_reference(seed: int) -> None:
    proto = chain(seed)
    ranges = ranges_of(proto, input_of(proto))
    x = input_of(proto, seed=seed + 10)
    quantized = quantize(proto, ranges, reduce_range=True)  # 7 bits: no product saturates
    expected = reference(proto, ranges.by_name, x, is_signed=False, levels=64)
    steps = np.abs(run(quantized, x) - expected) / output_steps(quantized)["out"]
    # each kernel may round a tie the other way, which the next layers pass on
    assert steps.max() <= 2.01, (steps.max(), int(steps.argmax()))


def test_every_weight_is_int8_with_a_scale_for_each_output_channel() -> None:
    proto = chain()
    found = constants(quantize(proto))
    for name in ("w1", "w2", "w3"):
        weight = constants(proto)[name]
        stored, scales = found[f"{name}_quantized"], found[f"{name}_scale"]
        assert stored.dtype == np.int8
        assert not found[f"{name}_zero_point"].any()
        expected, expected_scales = rounded_weight(weight, 127)
        np.testing.assert_allclose(scales, expected_scales, rtol=1e-6)
        shape = (-1, *(1,) * (weight.ndim - 1))
        np.testing.assert_allclose(stored * scales.reshape(shape), expected, rtol=1e-5, atol=1e-9)


def test_every_conv_and_gemm_reads_a_dequantized_weight_along_axis_0() -> None:
    quantized = quantize(chain())
    producers = {node.output[0]: node for node in quantized.graph.node}
    layers = [node for node in quantized.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 3
    for node in layers:
        mark = producers[node.input[1]]
        assert mark.op_type == "DequantizeLinear"
        assert [item.i for item in mark.attribute if item.name == "axis"] == [0]
        assert constants(quantized)[mark.input[1]].size == len(constants(quantized)[mark.input[0]])


@pytest.mark.parametrize(("is_signed", "dtype"), [(False, np.uint8), (True, np.int8)])
def test_activations_have_the_type_that_was_asked_for(
    is_signed: bool, dtype: type[np.generic]
) -> None:
    quantized = quantize(chain(), is_activation_signed=is_signed)
    found = constants(quantized)
    zero_points = [found[node.input[2]] for node in marks_on_activations(quantized)]
    assert len(zero_points) >= 4
    assert {item.dtype for item in zero_points} == {np.dtype(dtype)}


def test_reduced_weights_stay_within_7_bits() -> None:
    stored = [v for k, v in constants(quantize(chain(), reduce_range=True)).items() if "w" in k]
    stored = [values for values in stored if values.dtype == np.int8]
    assert min(values.min() for values in stored) >= -64
    assert max(values.max() for values in stored) == 64


def test_full_weights_use_8_bits() -> None:
    stored = constants(quantize(chain()))["w3_quantized"]
    assert np.abs(stored.astype(int)).max() == 127


def test_the_graph_that_goes_in_is_left_as_it_is() -> None:
    proto = three_convs()
    before = proto.SerializeToString(deterministic=True)
    quantize(proto, kept=["n_kept"])
    assert proto.SerializeToString(deterministic=True) == before


def test_no_matmul_output_is_quantized() -> None:
    proto = mixer()
    quantized = quantize(proto)
    products = {node.output[0] for node in proto.graph.node if node.op_type == "MatMul"}
    assert not (products | {"t"}) & quantized_names(quantized)  # t: a transposed product
    assert np.isfinite(run(quantized, input_of(proto))).all()


def test_matmuls_with_a_weight_are_quantized_and_products_of_activations_are_not() -> None:
    quantized = quantize(mixer())
    nodes = {node.name: node for node in quantized.graph.node}
    dequantized = {n.output[0] for n in quantized.graph.node if n.op_type == "DequantizeLinear"}
    for name in ("n_m1", "n_k"):
        assert dequantized.issuperset(nodes[name].input), name
    assert not dequantized & {*nodes["n_s"].input}
    assert nodes["n_v"].input[0] not in dequantized
    assert {"w1_quantized", "w2_quantized"} <= set(constants(quantized))


def test_a_matmul_that_the_next_layer_reads_is_quantized_for_that_one() -> None:
    text = (
        "net (float[1, 6, 8] x) => (float[1, 6, 8] out) { m = MatMul(x, w1) out = MatMul(m, w2) }"
    )
    quantized = quantize(graph(text, **draw(1, w1=(8, 8), w2=(8, 8))))
    assert quantized_names(quantized) == {"x", "m"}
    assert float_nodes(quantized) == []


def test_a_tensor_with_sentinels_is_never_quantized() -> None:
    text = """
    net (float[1, 8] x, float[1, 8] mask) => (float[1, 4] out)
    {
        a = Gemm<transB = 1>(x, w1, b1)
        m = Add(a, mask)
        s = Softmax<axis = -1>(m)
        out = Gemm<transB = 1>(s, w2, b2)
    }
    """
    proto = graph(text, **draw(2, w1=(8, 8), b1=(8,), w2=(4, 8), b2=(4,)))
    known = {"x": (-3, 3), "a": (-5, 5), "m": (-5, 5), "s": (0, 1), "out": (-2, 2), "mask": (0, 0)}
    ranges = Ranges(
        by_name={name: Range(low=low, high=high) for name, (low, high) in known.items()},
        dead=(),
        masks=("mask", "m"),
    )
    quantized = quantize(proto, ranges)
    assert quantized_names(quantized) == {"x", "a", "s", "out"}
    session = onnxruntime.InferenceSession(
        quantized.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    mask = np.array([[0, 0, 0, 0, -3.4e38, -3.4e38, -3.4e38, -3.4e38]], np.float32)
    assert np.isfinite(session.run(None, {"x": np.ones((1, 8), np.float32), "mask": mask})[0]).all()


def test_a_mask_that_is_only_sentinels_needs_no_range() -> None:
    text = """
    net (float[1, 8] x, float[1, 8] mask) => (float[1, 8] out)
    { a = Mul(x, x) out = Add(a, mask) }
    """
    ranges = Ranges(
        by_name={"x": Range(low=-1, high=1), "a": Range(low=0, high=1)},
        dead=(),
        masks=("mask", "out"),
    )
    assert quantized_names(quantize(graph(text), ranges)) == {"x", "a"}


def unshielded(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The same graph with a kept node that reads what its neighbours read."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    shield = next(node for node in copy.graph.node if node.name == f"{name}_input")
    plain = next(
        node for node in copy.graph.node if node.input[0] == shield.input[0] and node != shield
    )
    next(node for node in copy.graph.node if node.name == name).input[0] = plain.output[0]
    copy.graph.node.remove(shield)
    return copy


def test_a_kept_conv_between_quantized_ones_computes_in_float() -> None:
    proto = three_convs()
    quantized, x = quantize(proto, kept=["n_kept"]), input_of(proto, seed=9)
    assert np.array_equal(run(quantized, x), run(quantized, x, disabled=["WeightBiasQuantization"]))
    assert np.array_equal(constants(quantized)["w2"], constants(proto)["w2"])


def test_without_a_shield_the_runtime_would_quantize_a_kept_conv() -> None:
    proto = three_convs()
    quantized, x = unshielded(quantize(proto, kept=["n_kept"]), "n_kept"), input_of(proto, seed=9)
    difference = run(quantized, x) - run(quantized, x, disabled=["WeightBiasQuantization"])
    assert np.abs(difference).max() > 10 * output_steps(quantized)["out"]


def test_a_shield_computes_the_same_numbers() -> None:
    proto = three_convs()
    quantized, x = quantize(proto, kept=["n_kept"]), input_of(proto, seed=9)
    plain = unshielded(quantized, "n_kept")
    assert np.array_equal(run(quantized, x, is_optimized=False), run(plain, x, is_optimized=False))


@pytest.mark.parametrize("is_signed", [False, True])
def test_kept_gemms_and_transposed_convs_are_shielded_too(is_signed: bool) -> None:
    text = """
    net (float[1, 2, 4, 4] x) => (float[1, 3] out)
    {
        c1 = Conv(x, w1, b1)
        up = ConvTranspose<strides = [2, 2]>(c1, w2, b2)
        c2 = Conv(up, w3, b3)
        f = Flatten(c2)
        g = Gemm<transB = 1>(f, w4, b4)
        out = Gemm<transB = 1>(g, w5, b5)
    }
    """
    weights = draw(
        3,
        **{"w1": (3, 2, 1, 1), "w2": (3, 2, 2, 2), "w3": (1, 2, 1, 1), "w4": (4, 64), "w5": (3, 4)},
        **{"b1": (3,), "b2": (2,), "b3": (1,), "b4": (4,), "b5": (3,)},
    )
    weights["w4"] *= np.array([[100], [1], [0.01], [1]])
    proto = graph(text, **weights)
    quantized = quantize(proto, kept=["n_up", "n_g"], is_activation_signed=is_signed)
    x = input_of(proto, seed=4)
    assert np.array_equal(run(quantized, x), run(quantized, x, disabled=["WeightBiasQuantization"]))
    assert {"n_up", "n_g"} == {node.name for node in float_nodes(quantized)}


def test_two_kept_layers_may_read_one_tensor() -> None:
    text = """
    net (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] out)
    {
        c1 = Conv(x, w1, b1)
        a = Conv(c1, w2, b2)
        b = Conv(c1, w3, b3)
        s = Add(a, b)
        out = Conv(s, w4, b4)
    }
    """
    weights = draw(
        3,
        **{f"w{index}": (3, 2 if index == 1 else 3, 1, 1) for index in range(1, 5)},
        **{f"b{index}": (3,) for index in range(1, 5)},
    )
    proto = graph(text, **weights)
    quantized, x = quantize(proto, kept=["n_a", "n_b"]), input_of(proto)
    onnx.checker.check_model(quantized, full_check=True)
    assert np.array_equal(run(quantized, x), run(quantized, x, disabled=["WeightBiasQuantization"]))


def test_keeping_every_layer_gives_the_float_graph() -> None:
    proto = three_convs()
    quantized = quantize(proto, kept=[node.name for node in proto.graph.node])
    assert not marks_on_activations(quantized)
    assert np.array_equal(run(quantized, input_of(proto)), run(proto, input_of(proto)))


MIDDLES = {
    "ReduceMean": "m = ReduceMean(r1, axes)",
    "GlobalAveragePool": "m = GlobalAveragePool(r1)",
    "AveragePool": "m = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(r1)",
    "MaxPool": "m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r1)",
    "Resize": 'm = Resize<mode = "nearest">(r1, , , sizes)',
    "Sigmoid": "m = Sigmoid(r1)",
    "Tanh": "m = Tanh(r1)",
    "LeakyRelu": "m = LeakyRelu<alpha = 0.1>(r1)",
    "Elu": "m = Elu(r1)",
    "Add": "m = Add(r1, r1)",
    "Mul": "m = Mul(r1, r1)",
    "Sub": "s = Sigmoid(r1) m = Sub(r1, s)",
    "Div": "s = Sigmoid(r1) m = Div(r1, s)",
    "Softmax": "m = Softmax<axis = 1>(r1)",
    "Sqrt": "m = Sqrt(r1)",
    "Abs": "m = Abs(r1)",
    "HardSwish": "m = HardSwish(r1)",
    "InstanceNormalization": "m = InstanceNormalization(r1, b1, b1)",
    "ConvTranspose": "m = ConvTranspose<strides = [2, 2]>(r1, up, b1)",
    "Concat": "s = Sigmoid(r1) a = Concat<axis = 2>(s, r1) m = MaxPool<kernel_shape = [2, 2]>(a)",
    "Transpose": "m = Transpose<perm = [0, 1, 3, 2]>(r1)",
    "MatMul": "m = MatMul(r1, square)",
}


def middle(kind: str) -> onnx.ModelProto:
    """An operator between two convolutions."""
    text = (
        "net (float[1, 2, 6, 6] x) => (float[1, 3, h, w] out) "
        "<int64[2] axes = {2, 3}, int64[4] sizes = {1, 3, 12, 12}> {"
        f"c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1) r1 = Relu(c1) {MIDDLES[kind]}"
        " out = Conv(m, w2, b1) }"
    )
    weights = draw(0, w1=(3, 2, 3, 3), b1=(3,), w2=(3, 3, 1, 1), up=(3, 3, 2, 2), square=(6, 6))
    weights["b1"] = abs(weights["b1"]) + 1
    return graph(text, **{k: v for k, v in weights.items() if k in text})


@pytest.mark.parametrize("kind", MIDDLES)
def test_float_nodes_are_those_that_the_runtime_runs_in_float(kind: str, tmp_path: Path) -> None:
    quantized = quantize(middle(kind))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        quantized.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimized = onnx.load(tmp_path / "optimized.onnx").graph.node
    floats = {node.output[0] for node in optimized if node.op_type == "DequantizeLinear"}
    readers = {node.op_type for node in optimized if floats.intersection(node.input)}
    found = {node.op_type for node in float_nodes(quantized)}
    assert found == ({kind} if readers else set()), readers


def test_a_reduce_mean_is_told_as_float_whether_its_result_is_quantized_or_not() -> None:
    text = """
    net (float[1, 2, 6, 6] x) => (float[1, 3] out)
    <int64[2] axes = {2, 3}>
    { c = Conv(x, w1, b1) out = ReduceMean<keepdims = 0>(c, axes) }
    """
    quantized = quantize(graph(text, **draw(0, w1=(3, 2, 3, 3), b1=(3,))))
    assert [node.op_type for node in float_nodes(quantized)] == ["ReduceMean"]
    assert [node.op_type for node in float_nodes(quantize(middle("ReduceMean")))] == ["ReduceMean"]


def test_a_whole_chain_has_no_float_node_and_a_float_graph_only_such() -> None:
    assert float_nodes(quantize(chain())) == []
    assert {node.op_type for node in float_nodes(chain())} == {"Conv", "Relu", "Gemm"}


def test_the_same_graph_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "graph.onnx")
    digests = set()
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", RENDER, str(tmp_path / "graph.onnx"), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed, "TMPDIR": str(tmp_path)},
            cwd=tmp_path,
            check=True,
        )
        digests.add(file_sha256(tmp_path / seed))
    assert len(digests) == 1
    assert not list(tmp_path.glob("edgeship-*"))  # its scratch files are gone


@pytest.mark.parametrize("high", [0.0, 1e-45, 1e-40])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_dead_tensor_has_a_finite_scale_above_zero(high: float, is_signed: bool) -> None:
    proto = chain()
    dead = Range(low=0, high=high)
    ranges = ranges_of(proto, input_of(proto), r1=dead)
    quantized = quantize(proto, ranges, is_activation_signed=is_signed)
    scales = [values for name, values in constants(quantized).items() if name.endswith("_scale")]
    assert all(np.isfinite(item).all() and (item > 0).all() for item in scales)
    assert np.isfinite(run(quantized, input_of(proto))).all()


def test_a_zero_weight_channel_has_a_finite_scale_and_gives_its_bias() -> None:
    proto = chain()
    weights = constants(proto)
    weights["w3"] = weights["w3"].copy()
    weights["w3"][2] = 0
    proto = graph(CHAIN, **weights)
    quantized = quantize(proto)
    scales = constants(quantized)["w3_scale"]
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    found = run(quantized, input_of(proto), is_optimized=False)
    assert abs(found[0, 2] - weights["b3"][2]) <= output_steps(quantized)["out"]


@pytest.mark.parametrize(("low", "high"), [(3.0, 5.0), (-5.0, -3.0), (-1.0, 4.0)])
def test_zero_is_exact_whatever_the_range(low: float, high: float) -> None:
    proto = chain()
    quantized = quantize(proto, ranges_of(proto, input_of(proto), x=Range(low=low, high=high)))
    found = constants(quantized)
    scale, zero_point = float(found["x_scale"]), int(found["x_zero_point"])
    assert 0 <= zero_point <= 255
    expected = grid_of(Range(low=low, high=high), is_signed=False)
    assert scale == pytest.approx(expected.scale)
    assert zero_point == expected.zero_point


def test_an_output_step_is_the_scale_of_the_last_dequantize() -> None:
    quantized = quantize(chain())
    last = next(node for node in quantized.graph.node if node.output[0] == "out")
    assert last.op_type == "DequantizeLinear"
    scale = float(constants(quantized)[last.input[1]])
    assert output_steps(quantized) == {"out": scale}
    x = input_of(quantized)
    steps = run(quantized, x) / scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_a_float_output_has_no_step() -> None:
    assert output_steps(quantize(chain(), kept=["n_out"])) == {}
    assert output_steps(chain()) == {}


def test_what_the_quantizer_cannot_do_is_refused() -> None:
    proto = chain()
    without = Ranges(by_name={"x": Range(low=-1, high=1)}, dead=(), masks=())
    with pytest.raises(ExportFailed, match=r"quantizer fails.*precision = \"fp32\""):
        quantize(proto, without)


def test_a_weight_that_is_not_a_number_is_refused() -> None:
    proto = chain()
    weights = constants(proto)
    weights["w2"] = np.full_like(weights["w2"], np.nan)
    ranges = ranges_of(proto, input_of(proto))
    with pytest.raises(ExportFailed, match="quantizer fails"):
        quantize(graph(CHAIN, **weights), ranges)
