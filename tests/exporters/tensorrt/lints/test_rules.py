"""Each rule finds the one violation that is planted into a clean net, and no other rule does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeship.exporters.tensorrt.lints import RULES, lint_graph
from edgeship.source.graph import module_of_node
from edgeship.targets.tensorrt_facts import TensorRtFacts

Plant = Callable[[onnx.ModelProto], None]


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: list[onnx.NodeProto] = [item for item in proto.graph.node if item.name == name]
    assert len(found) == 1
    return found[0]


def put(proto: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Replace or add an initializer."""
    for index, tensor in enumerate(proto.graph.initializer):
        if tensor.name == name:
            del proto.graph.initializer[index]
            break
    proto.graph.initializer.append(numpy_helper.from_array(values, name))


def values(proto: onnx.ModelProto, name: str) -> np.ndarray:
    tensor = next(item for item in proto.graph.initializer if item.name == name)
    return numpy_helper.to_array(tensor).copy()


def insert(proto: onnx.ModelProto, before: str, *made: onnx.NodeProto) -> None:
    """Put nodes before the one of that name."""
    at = [item.name for item in proto.graph.node].index(before)
    for offset, item in enumerate(made):
        proto.graph.node.insert(at + offset, item)


def insert_pair(proto: onnx.ModelProto, reader: str, position: int, scale: str = "r1") -> None:
    """Quantize one input of a node."""
    item = node(proto, reader)
    name = item.input[position]
    parameters = [f"{scale}_scale", f"{scale}_zero"]
    quantize = helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_8"], "new_q")
    restore = helper.make_node(
        "DequantizeLinear", [f"{name}_8", *parameters], [f"{name}_back"], "new_dq"
    )
    item.input[position] = f"{name}_back"
    insert(proto, reader, quantize, restore)


def set_attribute(item: onnx.NodeProto, name: str, value: object) -> None:
    drop_attribute(item, name)
    item.attribute.append(helper.make_attribute(name, value))


def drop_attribute(item: onnx.NodeProto, name: str) -> None:
    kept = [one for one in item.attribute if one.name != name]
    del item.attribute[:]
    item.attribute.extend(kept)


def opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 18


def unknown_operator(proto: onnx.ModelProto) -> None:
    softmax = node(proto, "softmax")
    softmax.op_type, softmax.domain = "FusedSoftmax", "com.microsoft"


def integer_pool(proto: onnx.ModelProto) -> None:
    """An index that is reduced: TensorRT 8.5 reduces floats."""
    put(proto, "index", np.array([[3, 4]]))
    reduced = helper.make_node("ReduceMean", ["index"], ["mean"], "mean", axes=[1], keepdims=0)
    used = helper.make_node("Gather", ["b1", "mean"], ["picked"], "gather")
    insert(proto, "softmax", reduced, used)


def double(proto: onnx.ModelProto) -> None:
    insert(
        proto,
        "softmax",
        helper.make_node("Cast", ["mb"], ["wide"], "widen", to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["wide"], ["narrow"], "narrow", to=TensorProto.FLOAT),
    )
    node(proto, "softmax").input[0] = "narrow"


def cubic_resize(proto: onnx.ModelProto) -> None:
    put(proto, "scales", np.array([1, 1, 1, 1], np.float32))
    made = helper.make_node("Resize", ["g", "", "scales"], ["g2"], "resize", mode="cubic")
    insert(proto, "flatten", made)
    node(proto, "flatten").input[0] = "g2"


def large_index(proto: onnx.ModelProto) -> None:
    put(proto, "index", np.array([2**40]))
    insert(proto, "softmax", helper.make_node("Gather", ["b1", "index"], ["picked"], "gather"))


def int64_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4]))


def bool_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 4]))


def no_zero_point(proto: onnx.ModelProto) -> None:
    del node(proto, "r1_dequantize").input[2]


def unsigned_zero_point(proto: onnx.ModelProto) -> None:
    put(proto, "unsigned", np.array(0, np.uint8))
    node(proto, "r1_quantize").input[2] = "unsigned"


def shifted_zero_point(proto: onnx.ModelProto) -> None:
    put(proto, "shifted", np.array(-3, np.int8))
    node(proto, "r1_quantize").input[2] = "shifted"


def two_zero_points(proto: onnx.ModelProto) -> None:
    put(proto, "two", np.zeros(2, np.int8))
    node(proto, "r1_quantize").input[2] = "two"


def computed_scale(proto: onnx.ModelProto) -> None:
    made = helper.make_node("Identity", ["r1_scale"], ["scale_now"], "identity")
    insert(proto, "r1_quantize", made)
    node(proto, "r1_quantize").input[1] = "scale_now"


def dead_channel(proto: onnx.ModelProto) -> None:
    scales = values(proto, "w2_scale")
    scales[5] = 0
    put(proto, "w2_scale", scales)


def subnormal_scale(proto: onnx.ModelProto) -> None:
    scales = values(proto, "w2_scale")
    scales[5] = 2.0**-15
    put(proto, "w2_scale", scales)


def half_scale(proto: onnx.ModelProto) -> None:
    for name in ("r1_quantize", "r1_dequantize"):
        node(proto, name).input[1] = "half_scale"
    put(proto, "half_scale", np.array(0.03, np.float16))


def few_scales(proto: onnx.ModelProto) -> None:
    for part, kind in (("scale", np.float32), ("zero", np.int8)):
        put(proto, f"w2_{part}", values(proto, f"w2_{part}")[:8].astype(kind))


def unsaid_axis(proto: onnx.ModelProto) -> None:
    for name in ("w5_quantize", "w5_dequantize"):
        drop_attribute(node(proto, name), "axis")


def axis_beyond(proto: onnx.ModelProto) -> None:
    for name in ("w2_quantize", "w2_dequantize"):
        set_attribute(node(proto, name), "axis", 7)


def channel_scales_of_activation(proto: onnx.ModelProto) -> None:
    put(proto, "r1_scale", np.full(16, 0.03, np.float32))
    put(proto, "r1_zero", np.zeros(16, np.int8))
    for name in ("r1_quantize", "r1_dequantize"):
        set_attribute(node(proto, name), "axis", 1)


def other_scale_back(proto: onnx.ModelProto) -> None:
    node(proto, "r1_dequantize").input[1] = "x_scale"


def bias_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "conv2", 2)


def integer_bias(proto: onnx.ModelProto) -> None:
    put(proto, "b_q", np.ones(16, np.int32))
    put(proto, "b_zero", np.zeros(16, np.int32))
    inputs = ["b_q", "w2_scale", "b_zero"]
    made = helper.make_node("DequantizeLinear", inputs, ["b_dq"], "bias_dq", axis=0)
    insert(proto, "conv2", made)
    node(proto, "conv2").input[2] = "b_dq"


def added_bias_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "bias", 1)


def output_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "relu1", 0)


def pair_before_bias(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "bias", 0)


def both_branches(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "skip", 0)


def float_activation(proto: onnx.ModelProto) -> None:
    node(proto, "matmul").input[0] = "t"
    for name in ("t_dequantize", "t_quantize"):
        proto.graph.node.remove(node(proto, name))


def one_scale_of_weight(proto: onnx.ModelProto) -> None:
    put(proto, "w2_scale", np.array(0.01, np.float32))
    put(proto, "w2_zero", np.array(0, np.int8))


def other_axis(proto: onnx.ModelProto) -> None:
    for name in ("w2_quantize", "w2_dequantize"):
        set_attribute(node(proto, name), "axis", 1)


def lowest_code(proto: onnx.ModelProto) -> None:
    put(proto, "w2_q", np.full((16, 16, 3, 3), -128, np.int8))
    proto.graph.node.remove(node(proto, "w2_quantize"))


def twelve_channels(proto: onnx.ModelProto) -> None:
    """conv2 gives 12 channels, of which four are filled up with zeros again."""
    put(proto, "w2", values(proto, "w2")[:12])
    put(proto, "b12", np.ones(12, np.float32))
    for part in ("scale", "zero"):
        put(proto, f"w2_{part}", values(proto, f"w2_{part}")[:12])
    put(proto, "channels", np.array([0, 0, 0, 0, 0, 4, 0, 0]))
    conv = node(proto, "conv2")
    conv.input[2], conv.output[0] = "b12", "c12"
    insert(proto, "skip", helper.make_node("Pad", ["c12", "channels"], ["c2"], "widen"))


def narrow_product(proto: onnx.ModelProto) -> None:
    put(proto, "w5", values(proto, "w5")[:, :10])
    for part in ("scale", "zero"):
        put(proto, f"w5_{part}", values(proto, f"w5_{part}")[:10])
    put(proto, "b1b", np.ones(10, np.float32))
    node(proto, "bias").input[1] = "b1b"
    proto.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 10


def left_norm(proto: onnx.ModelProto) -> None:
    inputs = ["c3", "b1", "b1", "b1", "b1"]
    made = helper.make_node("BatchNormalization", inputs, ["n3"], "norm")
    insert(proto, "relu3", made)
    node(proto, "relu3").input[0] = "n3"


def unequal_concat(proto: onnx.ModelProto) -> None:
    put(proto, "r3_scale", np.array(0.05, np.float32))


def pair_behind_pad(proto: onnx.ModelProto) -> None:
    node(proto, "pad").input[0] = "r2"
    insert_pair(proto, "conv3", 0)


def second_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "rows", 0, scale="r3")


def chained_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "pad", 0, scale="r2")


def quantized_fill(proto: onnx.ModelProto) -> None:
    put(proto, "fill", np.array(0, np.float32))
    node(proto, "pad").input.append("fill")
    insert_pair(proto, "pad", 2)


def quantized_indices(proto: onnx.ModelProto) -> None:
    put(proto, "index", np.array([1], np.int32))
    parameters = ["r1_scale", "r1_zero"]
    made = [
        helper.make_node("QuantizeLinear", ["index", *parameters], ["index_q"], "index_quantize"),
        helper.make_node("DequantizeLinear", ["index_q", *parameters], ["index_dq"], "index_dq"),
    ]
    insert(proto, "softmax", *made)


def softmax_pair(proto: onnx.ModelProto) -> None:
    insert_pair(proto, "softmax", 0)


def quantized_logits(proto: onnx.ModelProto) -> None:
    node(proto, "head").output[0] = "raw"
    parameters = ["r1_scale", "r1_zero"]
    proto.graph.node.append(
        helper.make_node("QuantizeLinear", ["raw", *parameters], ["raw_q"], "logits_quantize")
    )
    proto.graph.node.append(
        helper.make_node(
            "DequantizeLinear", ["raw_q", *parameters], ["logits"], "logits_dequantize"
        )
    )


def quantized_and_dropped(proto: onnx.ModelProto) -> None:
    parameters = ["r1_scale", "r1_zero"]
    made = helper.make_node("QuantizeLinear", ["g", *parameters], ["g_q"], "g_quantize")
    insert(proto, "flatten", made)


def dynamic_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def no_name(proto: onnx.ModelProto) -> None:
    node(proto, "relu2").name = ""


def same_name(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(0, helper.make_node("Shape", ["x"], ["shape"], "softmax"))


def huge_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.INT8, dims=[2**16, 2**16])
    )


def external_weight(proto: onnx.ModelProto) -> None:
    tensor = TensorProto(name="far", data_type=TensorProto.INT8, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="far.bin")
    proto.graph.initializer.append(tensor)


def reversed_nodes(proto: onnx.ModelProto) -> None:
    relu = onnx.NodeProto.FromString(node(proto, "relu3").SerializeToString())
    proto.graph.node.remove(node(proto, "relu3"))
    proto.graph.node.insert(0, relu)


PLANTS: Final[list[tuple[str, str, Plant, list[str]]]] = [
    ("opset", "8.5.2", opset, ["graph"]),
    ("operator", "10.3.0", unknown_operator, ["softmax"]),
    ("operator-type", "8.5.2", integer_pool, ["mean"]),
    ("data-type", "10.3.0", double, ["widen"]),
    ("restriction", "8.5.2", cubic_resize, ["resize"]),
    ("int64-value", "8.5.2", large_index, ["index"]),
    ("int64-edge", "8.5.2", int64_input, ["ids"]),
    ("bool-edge", "8.5.2", bool_input, ["mask"]),
    ("zero-point-missing", "8.6.2", no_zero_point, ["r1_dequantize"]),
    ("zero-point-type", "8.5.2", unsigned_zero_point, ["r1_quantize"]),
    ("zero-point-type", "10.3.0", unsigned_zero_point, ["r1_quantize"]),
    ("zero-point-nonzero", "8.2.1", shifted_zero_point, ["r1_quantize"]),
    ("zero-point-count", "8.5.2", two_zero_points, ["r1_quantize"]),
    ("scale-not-constant", "11.4.1", computed_scale, ["r1_quantize"]),
    ("scale-not-positive", "8.5.2", dead_channel, ["w2_quantize", "w2_dequantize"]),
    ("scale-not-positive", "10.16.1", dead_channel, ["w2_quantize", "w2_dequantize"]),
    ("scale-subnormal", "10.16.1", subnormal_scale, ["w2_quantize", "w2_dequantize"]),
    ("scale-type", "8.6.2", half_scale, ["r1_quantize", "r1_dequantize"]),
    ("scale-type", "10.3.0", half_scale, ["r1_quantize", "r1_dequantize"]),
    ("scale-count", "8.5.2", few_scales, ["w2_quantize", "w2_dequantize"]),
    ("axis-missing", "8.2.1", unsaid_axis, ["w5_quantize", "w5_dequantize"]),
    ("axis-out-of-range", "10.3.0", axis_beyond, ["w2_quantize", "w2_dequantize"]),
    ("per-channel-activation", "8.5.2", channel_scales_of_activation, ["r1_quantize"]),
    ("quantized-bias", "8.5.2", integer_bias, ["conv2"]),
    ("quantized-bias", "10.3.0", bias_pair, ["conv2"]),
    ("quantized-bias", "8.5.2", added_bias_pair, ["bias"]),
    ("unequal-pair", "8.5.2", other_scale_back, ["r1_dequantize"]),
    ("quantized-output", "8.5.2", output_pair, ["new_q"]),
    ("quantized-output", "8.5.2", pair_before_bias, ["new_q"]),
    ("residual-add", "8.5.2", both_branches, ["skip"]),
    ("weight-alone", "8.5.2", float_activation, ["matmul"]),
    ("weight-granularity", "8.5.2", one_scale_of_weight, ["conv2"]),
    ("weight-axis", "8.5.2", other_axis, ["conv2"]),
    ("weight-code", "10.3.0", lowest_code, ["conv2"]),
    ("narrow-convolution", "8.5.2", twelve_channels, ["conv2"]),
    ("small-matrix", "8.5.2", narrow_product, ["matmul"]),
    ("unfolded-norm", "8.5.2", left_norm, ["norm"]),
    ("concat-scales", "8.5.2", unequal_concat, ["concat"]),
    ("pair-after-pad", "8.5.2", pair_behind_pad, ["new_q"]),
    ("double-pair", "8.5.2", second_pair, ["new_q"]),
    ("double-pair", "10.3.0", chained_pair, ["new_q"]),
    ("pair-on-shapes", "8.5.2", quantized_fill, ["pad"]),
    ("pair-on-shapes", "8.5.2", quantized_indices, ["index_quantize"]),
    ("pair-before-float", "8.5.2", softmax_pair, ["softmax"]),
    ("pair-at-output", "8.5.2", quantized_logits, ["logits_dequantize"]),
    ("lone-quantizer", "8.5.2", quantized_and_dropped, ["g_quantize"]),
    ("dynamic-shape", "8.5.2", dynamic_batch, ["x"]),
    ("unnamed-node", "10.3.0", no_name, ["Relu that gives r2"]),
    ("unnamed-node", "10.3.0", same_name, ["softmax", "softmax"]),
    ("large-initializer", "8.5.2", huge_weight, ["huge", "graph"]),
    ("large-initializer", "8.5.2", external_weight, ["far"]),
    ("unsorted-node", "8.5.2", reversed_nodes, ["relu3"]),
]


@pytest.mark.parametrize(
    ("rule", "version", "plant", "nodes"),
    PLANTS,
    ids=[f"{rule}-{version}-{plant.__name__}" for rule, version, plant, _ in PLANTS],
)
def test_a_planted_violation_is_found_by_its_rule_alone(
    rule: str,
    version: str,
    plant: Plant,
    nodes: list[str],
    clean: Callable[[TensorRtFacts], onnx.ModelProto],
    facts_of: Callable[[str], TensorRtFacts],
) -> None:
    facts = facts_of(version)
    proto = clean(facts)
    plant(proto)
    found = [(item.rule, item.node) for item in lint_graph(proto, facts, module_of_node)]
    assert found == [(rule, name) for name in nodes]


def test_every_rule_has_a_planted_violation() -> None:
    planted = {rule for rule, *_ in PLANTS}
    assert planted | {"int8-absent"} == set(RULES)
