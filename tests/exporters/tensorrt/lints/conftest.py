"""A small net as a kit has it: residual, padded and joined convolutions, two heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from edgeship.targets import load_target
from edgeship.targets.tensorrt_facts import TensorRtFacts, tensorrt_facts

CONV: Final = "pads = [1, 1, 1, 1], kernel_shape = [3, 3]"
WEIGHTS: Final = {
    "w1": ((16, 16, 3, 3), 0),
    "w2": ((16, 16, 3, 3), 0),
    "w3": ((16, 16, 3, 3), 0),
    "w5": ((64, 16), 1),
}
"""Shape and axis of the output channels."""
ACTIVATIONS: Final = {"x": 0.02, "r1": 0.03, "r2": 0.04, "r3": 0.04, "t": 0.04}
"""Scales; r2 and r3 are joined."""
NODES: Final = f"""
    [conv1] c1 = Conv<{CONV}>(x_dq, w1_dq, b1)
    [relu1] r1 = Relu(c1)
    {{r1}}
    [conv2] c2 = Conv<{CONV}>(r1_dq, w2_dq, b1)
    [skip] a = Add(c2, x_dq)
    [relu2] r2 = Relu(a)
    {{r2}}
    [pad] p = Pad(r2_dq, pads)
    [conv3] c3 = Conv<kernel_shape = [3, 3]>(p, w3_dq, b1)
    [relu3] r3 = Relu(c3)
    {{r3}}
    [concat] cat = Concat<axis = 1>(r3_dq, r2_dq)
    [gap] g = GlobalAveragePool(cat)
    [flatten] f = Reshape(g, flat)
    [head] logits = Gemm<transB = 1>(f, w4, b4)
    [rows] t = Reshape(r3, square)
    {{t}}
    [matmul] m = MatMul(t_dq, w5_dq)
    [bias] mb = Add(m, b1)
    [softmax] probabilities = Softmax<axis = -1>(mb)
"""


def pair(tensor: str, axis: int | None = None) -> str:
    at = "" if axis is None else f"<axis = {axis}>"
    scale = f"{tensor}_scale, {tensor}_zero"
    return (
        f"[{tensor}_quantize] {tensor}_q = QuantizeLinear{at}({tensor}, {scale})\n"
        f"[{tensor}_dequantize] {tensor}_dq = DequantizeLinear{at}({tensor}_q, {scale})"
    )


def initializers(kind: type[np.floating]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {name: random.normal(0, 0.1, shape).astype(kind) for name, (shape, _) in WEIGHTS.items()}
    made |= {"w4": np.ones((10, 32), kind), "b4": np.ones(10, kind), "b1": np.ones(16, kind)}
    for name, (_, axis) in WEIGHTS.items():
        others = tuple(index for index in range(made[name].ndim) if index != axis)
        made[f"{name}_scale"] = (np.abs(made[name]).max(axis=others) / 127).astype(kind)
        made[f"{name}_zero"] = np.zeros(16, np.int8)
    for name, scale in ACTIVATIONS.items():
        made[f"{name}_scale"], made[f"{name}_zero"] = np.array(scale, kind), np.array(0, np.int8)
    made["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    made["flat"], made["square"] = np.array([1, 32]), np.array([1, 16, 64])
    return made


def model(nodes: str, opset: int, kind: type[np.floating]) -> onnx.ModelProto:
    name = "float16" if kind is np.float16 else "float"
    weights = "\n".join(pair(weight, axis) for weight, (_, axis) in WEIGHTS.items())
    text = f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        net ({name}[1, 16, 8, 8] x) => ({name}[1, 10] logits, {name}[1, 16, 16] probabilities)
        {{
        {pair("x")}
        {weights}
        {nodes.format_map({name: pair(name) for name in ACTIVATIONS})}
        }}
    """
    proto = parser.parse_model(text)
    for name, values in initializers(kind).items():
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in proto.graph.node:
        node.metadata_props.add(
            key="pkg.torch.onnx.name_scopes", value=repr(["", f"layer.{node.name}", node.name])
        )
    return proto


@pytest.fixture
def clean() -> Callable[[TensorRtFacts], onnx.ModelProto]:
    """The net as `facts` wants it."""

    def build(facts: TensorRtFacts) -> onnx.ModelProto:
        return model(NODES, facts.opset, np.float16 if facts.is_strongly_typed else np.float32)

    return build


@pytest.fixture
def facts_of() -> Callable[[str], TensorRtFacts]:
    """Facts of a version on a GPU with INT8."""
    target = load_target("jetson-orin-nano")

    def build(version: str) -> TensorRtFacts:
        return tensorrt_facts(replace(target, os=replace(target.os, tensorrt=version)))

    return build
