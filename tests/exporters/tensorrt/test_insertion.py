from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeship.calibration.ranges import Ranges
from edgeship.exporters.half import half_graph
from edgeship.exporters.tensorrt.insertion import with_pairs
from edgeship.exporters.tensorrt.opset import at_opset
from edgeship.exporters.tensorrt.placement import placement
from edgeship.exporters.tensorrt.scales import activation_scales

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, np.ndarray]]
Ranged = Callable[[onnx.ModelProto], Ranges]
LAYERS = """
net (float[4, 16] x) => (float[4, 16] out)
{
    m1 = Gemm<transB = 1>(x, w1, b1)
    r1 = Relu(m1)
    m2 = MatMul(r1, w2)
    out = Add(m2, r1)
}
"""
MIXED = """
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] out, float[1, 16, 1, 1] mean)
{
    c1 = Conv(x, w1)
    r1 = Relu(c1)
    mean = GlobalAveragePool(r1)
    out = Conv(r1, w2)
}
"""


def paired(proto: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    placed = placement(proto, ranges)
    return with_pairs(proto, placed, activation_scales(placed.groups, ranges))


def rounded(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear of the ONNX specification, zero point 0."""
    codes = np.clip(np.rint(values / scale), -128, 127).astype(np.float32)
    result: np.ndarray = codes * scale
    return result


def layers(make_graph: Make) -> onnx.ModelProto:
    return make_graph(LAYERS, w1=(16, 16), b1=(16,), w2=(16, 16))


def test_the_pairs_compute_what_the_specification_says(
    make_graph: Make, observed: Ranged, run: Run
) -> None:
    proto = layers(make_graph)
    ranges = observed(proto)
    weights = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    x = np.random.default_rng(3).standard_normal((4, 16)).astype(np.float32) * 2
    scales = {
        name: np.array(max(-item.low, item.high) / 127, np.float32)
        for name, item in ranges.by_name.items()
    }
    scale1 = (np.abs(weights["w1"]).max(axis=1, keepdims=True) / 127).astype(np.float32)
    scale2 = (np.abs(weights["w2"]).max(axis=0, keepdims=True) / 127).astype(np.float32)
    m1 = rounded(x, scales["x"]) @ rounded(weights["w1"], scale1).T + weights["b1"]
    r1 = rounded(np.maximum(m1, 0), scales["r1"])
    expected = r1 @ rounded(weights["w2"], scale2) + r1
    found = run(paired(proto, ranges), {"x": x}, is_optimized=False)["out"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_each_tensor_has_one_pair_with_an_explicit_zero_point(
    make_graph: Make, observed: Ranged
) -> None:
    proto = layers(make_graph)
    result = paired(proto, observed(proto))
    onnx.checker.check_model(result, full_check=True)
    values = {item.name: item for item in result.graph.initializer}
    pairs = [node for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in pairs] == ["x", "w1", "r1", "w2"]
    for node in result.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = values[node.input[1]], values[node.input[2]]
            assert scale.data_type == TensorProto.FLOAT
            assert zero.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero).any()
            assert list(scale.dims) == list(zero.dims)
            assert [item.name for item in node.attribute] == (["axis"] if scale.dims else [])
    readers = {node.name: list(node.input) for node in result.graph.node}
    assert readers["n_m1"] == ["x_dequantized", "w1_dequantized", "b1"]
    assert readers["n_m2"] == ["r1_dequantized", "w2_dequantized"]
    assert readers["n_out"] == ["m2", "r1_dequantized"]


def test_the_graph_stays_and_the_result_has_the_same_bytes(
    make_graph: Make, observed: Ranged
) -> None:
    proto = layers(make_graph)
    before = proto.SerializeToString(deterministic=True)
    ranges = observed(proto)
    first, second = paired(proto, ranges), paired(proto, ranges)
    assert proto.SerializeToString(deterministic=True) == before
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_weight_of_two_layers_is_quantized_once_for_each_axis(
    make_graph: Make, observed: Ranged
) -> None:
    text = LAYERS.replace("MatMul(r1, w2)", "MatMul(r1, w1)")
    proto = make_graph(text, w1=(16, 16), b1=(16,))
    result = paired(proto, observed(proto))
    axes = [
        node.attribute[0].i
        for node in result.graph.node
        if node.op_type == "DequantizeLinear" and node.attribute
    ]
    assert axes == [0, 1]
    onnx.checker.check_model(result, full_check=True)


def test_names_that_are_taken_are_not_taken_again(make_graph: Make, observed: Ranged) -> None:
    text = LAYERS.replace("r1", "x_quantized")
    proto = make_graph(text, w1=(16, 16), b1=(16,), w2=(16, 16))
    result = paired(proto, observed(proto))
    onnx.checker.check_model(result, full_check=True)
    names = [name for node in result.graph.node for name in (node.name, *node.output)]
    assert len(names) == len({*names})


def test_a_pair_says_where_its_node_comes_from(make_graph: Make, observed: Ranged) -> None:
    proto = layers(make_graph)
    for node in proto.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=node.name)
    for node in paired(proto, observed(proto)).graph.node:
        expected = {"x": "n_m1", "w1": "n_m1", "r1": "n_m2", "w2": "n_m2"}
        if node.op_type == "QuantizeLinear":
            assert node.metadata_props[0].value == expected[node.input[0]]


def test_in_float16_a_tensor_has_one_pair_and_float32_reads_a_cast_of_it(
    make_graph: Make, observed: Ranged, run: Run
) -> None:
    one = (16, 16, 1, 1)
    proto = make_graph(MIXED, w1=one, w2=one)
    ranges = observed(proto)
    placed = placement(proto, ranges)
    half = at_opset(half_graph(proto, ranges, ()).proto, 19).proto
    result = with_pairs(half, placed, activation_scales(placed.groups, ranges))
    onnx.checker.check_model(result, full_check=True)
    values = {item.name: item for item in result.graph.initializer}
    pairs = [node for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(node.input[0] for node in pairs) == [
        "r1_float16",
        "w1_float16",
        "w2_float16",
        "x_float16",
    ]
    assert {values[node.input[1]].data_type for node in pairs} == {TensorProto.FLOAT16}
    readers = {node.name: list(node.input) for node in result.graph.node}
    assert readers["n_mean"] == ["r1_float16_dequantized_float32"]
    expected, found = run(proto), run(result)
    for name, tolerance in (("out", 0.06), ("mean", 0.02)):
        assert (
            np.abs(found[name] - expected[name]).max() <= tolerance * np.abs(expected[name]).max()
        )


@pytest.mark.parametrize("is_half", [False, True])
def test_pruned_channels_leave_no_scale_of_zero(
    make_graph: Make, observed: Ranged, is_half: bool
) -> None:
    weights = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    weights[3], weights[5] = 0, weights[5] * 1e-6
    proto = make_graph(LAYERS, w1=weights, b1=(16,), w2=(16, 16))
    ranges = observed(proto)
    placed = placement(proto, ranges)
    base = at_opset(half_graph(proto, ranges, ()).proto, 19).proto if is_half else proto
    result = with_pairs(base, placed, activation_scales(placed.groups, ranges))
    for item in result.graph.initializer:
        if "_scale" in item.name:
            scales = numpy_helper.to_array(item)
            floor = np.finfo(np.float16).smallest_normal if is_half else 0
            assert (scales > floor).all()


def test_a_layer_that_stays_in_float32_reads_a_pair_in_float32(
    make_graph: Make, observed: Ranged
) -> None:
    one = (16, 16, 1, 1)
    proto = make_graph(MIXED, w1=one, w2=one)
    ranges = observed(proto)
    placed = placement(proto, ranges)
    half = at_opset(half_graph(proto, ranges, ["n_out"]).proto, 19).proto
    result = with_pairs(half, placed, activation_scales(placed.groups, ranges))
    onnx.checker.check_model(result, full_check=True)
    kinds = {item.name: item.data_type for item in result.graph.initializer}
    scales = {
        node.input[0]: kinds[node.input[1]]
        for node in result.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert scales == {
        "x_float16": TensorProto.FLOAT16,
        "w1_float16": TensorProto.FLOAT16,
        "r1": TensorProto.FLOAT,
        "r1_float16": TensorProto.FLOAT16,
        "w2": TensorProto.FLOAT,
    }
    readers = {node.name: list(node.input) for node in result.graph.node}
    assert readers["n_out"] == ["r1_dequantized", "w2_dequantized"]
