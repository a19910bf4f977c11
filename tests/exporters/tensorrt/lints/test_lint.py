from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeship.exporters.tensorrt.lints import RULES, lint_graph
from edgeship.source.graph import module_of_node
from edgeship.targets import load_target
from edgeship.targets.tensorrt_facts import TensorRtFacts, tensorrt_facts

VERSIONS = (
    *("8.0.1", "8.2.1", "8.4.1", "8.5.2", "8.6.2", "9.3.0", "10.0.1", "10.1.0", "10.3.0"),
    *("10.7.0", "10.13.3", "10.15.1", "10.16.1", "11.4.1"),
)
Clean = Callable[[TensorRtFacts], onnx.ModelProto]
FactsOf = Callable[[str], TensorRtFacts]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clean_graph_has_no_finding(version: str, clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of(version))
    onnx.checker.check_model(proto, full_check=True)
    assert lint_graph(proto, facts_of(version), module_of_node) == []


def test_a_graph_is_left_as_it_is(clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of("8.5.2"))
    before = proto.SerializeToString(deterministic=True)
    lint_graph(proto, facts_of("8.5.2"), module_of_node)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_gpu_without_int8_takes_no_quantized_graph(clean: Clean) -> None:
    nano = tensorrt_facts(load_target("jetson-nano"))
    (finding,) = lint_graph(clean(nano), nano, module_of_node)
    assert finding.rule == "int8-absent"
    assert "5.3" in finding.what


def test_half_scales_are_refused_where_they_are_read_as_float32(
    clean: Clean, facts_of: FactsOf
) -> None:
    typed = clean(facts_of("10.16.1"))
    found = lint_graph(typed, facts_of("8.6.2"), module_of_node)
    assert {finding.rule for finding in found} == {"opset", "scale-type"}
    marks = [node for node in typed.graph.node if node.op_type.endswith("quantizeLinear")]
    assert sum(finding.rule == "scale-type" for finding in found) >= len(marks)


@pytest.mark.parametrize(
    ("version", "rule", "source"),
    [
        ("8.5.2", "operator", "exact table of TensorRT 8.5"),
        ("10.3.0", "operator", "derived from onnx-tensorrt 10.1-GA"),
        ("8.5.2", "zero-point-nonzero", "parser of TensorRT 8.5"),
        ("10.3.0", "zero-point-nonzero", "derived from the parser of TensorRT 10.1"),
        ("8.5.2", "residual-add", "NVIDIA's advice"),
        ("8.5.2", "unnamed-node", "form of a kit"),
    ],
)
def test_a_finding_says_what_it_rests_on(
    version: str, rule: str, source: str, clean: Clean, facts_of: FactsOf
) -> None:
    proto = clean(facts_of(version))
    nodes = {node.name: node for node in proto.graph.node}
    nodes["softmax"].op_type = "Softermax"
    nodes["skip"].input[0] = "x_dq"
    nodes["skip"].input[1] = "c1_dq"
    made = helper.make_node("DequantizeLinear", ["c1_q", "x_scale", "one"], ["c1_dq"])
    proto.graph.node.insert(9, made)
    made = helper.make_node("QuantizeLinear", ["c1", "x_scale", "one"], ["c1_q"])
    proto.graph.node.insert(9, made)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int8), "one"))
    found = {item.rule: item for item in lint_graph(proto, facts_of(version), module_of_node)}
    assert found[rule].source.startswith(source)


def test_a_finding_names_node_and_torch_module(clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of("8.5.2"))
    (softmax,) = [node for node in proto.graph.node if node.name == "softmax"]
    softmax.op_type = "Softermax"
    (finding,) = lint_graph(proto, facts_of("8.5.2"), module_of_node)
    assert (finding.node, finding.module) == ("softmax", "layer.softmax")
    assert str(finding).startswith("softmax (layer.softmax): TensorRT 8.5.2 has no Softermax; ")
    assert finding.to_json()["rule"] == "operator"


def test_a_pair_without_a_module_has_that_of_its_layer(clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of("8.5.2"))
    for node in proto.graph.node:
        if node.name.startswith("r2_"):
            del node.metadata_props[:]
    for tensor in proto.graph.initializer:
        if tensor.name == "r2_zero":
            tensor.CopyFrom(numpy_helper.from_array(np.array(2, np.int8), "r2_zero"))
    found = lint_graph(proto, facts_of("8.5.2"), module_of_node)
    assert [(item.rule, item.module) for item in found] == [
        ("zero-point-nonzero", "layer.pad"),
        ("zero-point-nonzero", "layer.pad"),
    ]


def test_operators_of_subgraphs_are_linted(clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of("8.5.2"))
    value = helper.make_tensor_value_info("branch", TensorProto.FLOAT, [1])
    inner = helper.make_node("Strange", ["b1"], ["branch"], "inner")
    branch = helper.make_graph([inner], "branch", [], [value])
    made = helper.make_node(
        "If", ["yes"], ["chosen"], "choice", then_branch=branch, else_branch=branch
    )
    proto.graph.node.append(made)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    found = lint_graph(proto, facts_of("8.5.2"), module_of_node)
    assert [(item.rule, item.node) for item in found] == [("operator", "inner")] * 2


def test_ends_of_a_slice_may_be_beyond_int32(clean: Clean, facts_of: FactsOf) -> None:
    proto = clean(facts_of("8.5.2"))
    for name, number in (("begin", 0), ("end", 2**63 - 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    proto.graph.node.append(helper.make_node("Slice", ["b1", "begin", "end"], ["cut"], "slice"))
    assert lint_graph(proto, facts_of("8.5.2"), module_of_node) == []


def test_layer_normalization_is_taken_from_8_6_on(clean: Clean, facts_of: FactsOf) -> None:
    for version, expected in (("8.5.2", ["operator"]), ("8.6.2", []), ("10.3.0", [])):
        proto = clean(facts_of(version))
        proto.opset_import[0].version = 17
        made = helper.make_node("LayerNormalization", ["mb", "b1"], ["n"], "norm")
        proto.graph.node.append(made)
        found = lint_graph(proto, facts_of(version), module_of_node)
        assert [item.rule for item in found] == expected


NAMES = st.sampled_from(["", *"abcdefgh"])
KINDS = st.sampled_from(
    [
        *("QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose", "Gemm", "MatMul", "Add"),
        *("Concat", "Pad", "Relu", "Softmax", "Reshape", "Slice", "Resize", "TopK", "Where"),
        *("MaxPool", "Constant", "If", "BatchNormalization", "Unheard"),
    ]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["axis", "transB", "group", "mode", "dilations", "sorted", "value"]),
    st.one_of(
        st.integers(-3, 3),
        st.text(max_size=3),
        st.lists(st.integers(-2, 2), min_size=1, max_size=3),
        st.just(numpy_helper.from_array(np.ones(2, np.float32))),
    ),
    max_size=3,
)
TYPES = st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_])


@st.composite
def tensors(draw: st.DrawFn) -> TensorProto:
    name = draw(st.sampled_from("abcdefgh"))
    if draw(st.booleans()):
        return numpy_helper.from_array(np.array(["text"], dtype=object), name)
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    made = numpy_helper.from_array(np.ones(shape, draw(TYPES)), name)
    if draw(st.booleans()):
        made.raw_data = b"cut"
    return made


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    nodes = []
    for kind in draw(st.lists(KINDS, max_size=8)):
        inputs, outputs = draw(st.lists(NAMES, max_size=4)), draw(st.lists(NAMES, max_size=2))
        nodes.append(helper.make_node(kind, inputs, outputs, draw(st.sampled_from(["", "n", "m"]))))
        for key, value in draw(ATTRIBUTES).items():
            nodes[-1].attribute.append(helper.make_attribute(key, value))
    values = [
        helper.make_tensor_value_info(name, kind, draw(st.none() | st.lists(st.integers(0, 3))))
        for name, kind in (("a", TensorProto.FLOAT), ("b", TensorProto.INT64))
    ]
    graph = helper.make_graph(nodes, "random", values[:1], values, draw(st.lists(tensors())))
    opset = draw(st.integers(1, 30))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@settings(max_examples=40, deadline=None)
@given(models(), st.sampled_from(VERSIONS))
def test_any_graph_gives_findings_and_no_error(proto: onnx.ModelProto, version: str) -> None:
    target = load_target("jetson-orin-nano")
    facts = tensorrt_facts(replace(target, os=replace(target.os, tensorrt=version)))
    for finding in lint_graph(proto, facts, lambda _: ""):
        assert finding.rule in RULES
        assert finding.node
