from __future__ import annotations

import os
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest

from edgeship.errors import ExportFailed
from edgeship.exporters.tflite.dynamic import dynamic_model

tiny = SimpleNamespace(**run_path(str(Path(__file__).with_name("tiny.py"))))
ROOT: Final = Path(__file__).parents[3]
OLD_RUNTIME: Final = Path(
    os.environ.get("EDGESHIP_TFLITE_RUNTIME", ROOT / ".cache/tflite/bin/python")
)
RUN: Final = """\
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
inputs = np.load(sys.argv[2])
for details in interpreter.get_input_details():
    interpreter.set_tensor(details["index"], inputs[details["name"]])
interpreter.invoke()
np.save(sys.argv[3], interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""
CHANNELS: Final = np.array([0.02, 0.1, 1.0, 5.0])
"""How much the weights of output channels differ: one scale in all is coarse, not wrong."""


def linear_net(generator: np.random.Generator) -> bytes:
    net = tiny.Tiny()
    net.activation("x", 1, 16)
    net.linear("x", generator.normal(size=(4, 16)) * CHANNELS[:, None], np.zeros(4), "y")
    return bytes(net.write(["x"], ["y"]))


def product_net(generator: np.random.Generator) -> bytes:
    net = tiny.Tiny()
    net.activation("x", 1, 2, 16)
    net.activation("y", 1, 2, 4)
    net.constant("factor", generator.normal(size=(1, 16, 4)) * CHANNELS)
    net.operator("BATCH_MATMUL", ["x", "factor"], ["y"], "BatchMatMulOptions")
    return bytes(net.write(["x"], ["y"]))


def lookup_net(generator: np.random.Generator) -> bytes:
    net = tiny.Tiny()
    net.activation("x", 3, dtype=np.int32)
    net.activation("y", 3, 16)
    net.constant("table", generator.normal(size=(4, 16)) * CHANNELS[:, None])
    net.operator("EMBEDDING_LOOKUP", ["x", "table"], ["y"])
    return bytes(net.write(["x"], ["y"]))


def convolution_net(generator: np.random.Generator, kind: str = "CONV_2D") -> bytes:
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    net = tiny.Tiny()
    net.activation("x", 1, 8, 8, 4)
    net.activation("y", 1, 8, 8, 4)
    if is_depthwise:
        net.constant("weights", generator.normal(size=(1, 3, 3, 4)) * CHANNELS)
    else:
        net.constant("weights", generator.normal(size=(4, 3, 3, 4)) * CHANNELS.reshape(4, 1, 1, 1))
    net.constant("bias", np.zeros(4))
    strides = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    if is_depthwise:
        strides["depthMultiplier"] = 1
    options = "DepthwiseConv2DOptions" if is_depthwise else "Conv2DOptions"
    net.operator(kind, ["x", "weights", "bias"], ["y"], options, **strides)
    return bytes(net.write(["x"], ["y"]))


def transposed_net(generator: np.random.Generator) -> bytes:
    """Then a convolution: the transposed one is left in float for the old runtime."""
    net = tiny.Tiny()
    net.activation("x", 1, 4, 4, 4)
    net.activation("large", 1, 8, 8, 4)
    net.activation("y", 1, 8, 8, 4)
    net.constant("shape", [1, 8, 8, 4], np.int32)
    net.constant("weights", generator.normal(size=(4, 2, 2, 4)) * CHANNELS.reshape(4, 1, 1, 1))
    strides = {"strideW": 2, "strideH": 2, "padding": 1}
    inputs = ["shape", "weights", "x"]
    net.operator("TRANSPOSE_CONV", inputs, ["large"], "TransposeConvOptions", **strides)
    net.constant("last", generator.normal(size=(4, 1, 1, 4)))
    net.constant("bias", np.zeros(4))
    strides = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    net.operator("CONV_2D", ["large", "last", "bias"], ["y"], "Conv2DOptions", **strides)
    return bytes(net.write(["x"], ["y"]))


NETS: Final = {
    "linear": linear_net,
    "product": product_net,
    "lookup": lookup_net,
    "convolution": convolution_net,
    "depthwise": lambda generator: convolution_net(generator, "DEPTHWISE_CONV_2D"),
    "transposed": transposed_net,
}
SHAPES: Final = {"linear": (1, 16), "product": (1, 2, 16), "transposed": (1, 4, 4, 4)}


def sample(name: str) -> np.ndarray:
    if name == "lookup":
        return np.array([3, 2, 3], np.int32)
    shape = SHAPES.get(name, (1, 8, 8, 4))
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def noise_to_signal(found: np.ndarray, exact: np.ndarray) -> float:
    return float(((found - exact) ** 2).sum() / (exact**2).sum())


# int8 of weights and of activations, in one scale for channels that differ 250 times: 30 dB hold,
# while nonsense is at 0 dB
LIMIT: Final = 1e-3


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_values_in_litert(name: str, *, is_old: bool) -> None:
    content = NETS[name](np.random.default_rng(0))
    quantized = dynamic_model(content, for_old=is_old)

    x = sample(name)
    assert noise_to_signal(tiny.run(quantized, x), tiny.run(content, x)) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_values_in_tflite_runtime(name: str, tmp_path: Path) -> None:
    if not OLD_RUNTIME.exists():
        pytest.skip("make fixtures")
    content = NETS[name](np.random.default_rng(0))
    model, inputs, output = (tmp_path / item for item in ("model.tflite", "x.npz", "y.npy"))
    model.write_bytes(dynamic_model(content, for_old=True))
    x = sample(name)
    np.savez(inputs, x=x)
    command: list[str | Path] = [OLD_RUNTIME, "-c", RUN, model, inputs, output]
    subprocess.run(command, check=True, capture_output=True)

    assert noise_to_signal(np.load(output), tiny.run(content, x)) < LIMIT


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("linear", "y.weight"),
        ("product", "factor"),
        ("lookup", "table"),
        ("convolution", "weights"),
    ],
)
def test_scales_are_per_channel_or_one_where_the_runtime_reads_one(name: str, tensor: str) -> None:
    content = NETS[name](np.random.default_rng(0))
    counts = [
        len(tiny.scales(dynamic_model(content, for_old=is_old), tensor)[0])
        for is_old in (False, True)
    ]
    assert counts == ([4, 4] if name == "convolution" else [4, 1])


def test_activations_and_ends_are_float32() -> None:
    content = linear_net(np.random.default_rng(0))
    quantized = dynamic_model(content, for_old=False)

    types = tiny.types(quantized)
    assert types == {"x": "FLOAT32", "y.weight": "INT8", "y.bias": "FLOAT32", "y": "FLOAT32"}
    assert dynamic_model(content, for_old=False) == quantized


def test_kept_operator_keeps_its_weights() -> None:
    net = tiny.Tiny()
    net.activation("x", 1, 2)
    net.linear("x", np.eye(2), np.zeros(2), "a")
    net.linear("a", np.eye(2), np.zeros(2), "a;1")
    net.binary("ADD", "a;1", "x", "y")
    content = net.write(["x"], ["y"])

    quantized = dynamic_model(content, for_old=False, kept=["a"])
    types = tiny.types(quantized)
    assert (types["a.weight"], types["a;1.weight"]) == ("FLOAT32", "INT8")


def test_nothing_to_quantize_is_refused() -> None:
    content = linear_net(np.random.default_rng(0))
    with pytest.raises(ExportFailed, match="constant weights, that no rule keeps"):
        dynamic_model(content, for_old=False, kept=["y"])
