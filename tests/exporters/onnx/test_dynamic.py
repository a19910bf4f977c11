import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgeship.errors import ExportFailed
from edgeship.exporters.onnx.dynamic import dynamic_graph, dynamic_notes

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'
LAYERS = """
net (float[3, 8] x) => (float[3, 4] out)
{
    a = Gemm<transB = 1>(x, w1, b1)
    r = Relu(a)
    m = MatMul(r, w2)
    out = Gemm(m, w3)
}
"""
TOKENS = """
net (int64[1, 5] x) => (float[1, 5, 5] out)
{
    e = Gather(table, x)
    q = MatMul(e, w1)
    t = Transpose<perm = [0, 2, 1]>(e)
    out = MatMul(q, t)
}
"""
RENDER = """
import sys
import onnx
from edgeship.exporters.onnx.dynamic import dynamic_graph
quantized = dynamic_graph(onnx.load(sys.argv[1]), reduce_range=False, kept=["n_m"])
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


def layers() -> onnx.ModelProto:
    """Output channels of the first layer differ by 1000 in size, which the second makes up for."""
    values = draw(0, w1=(6, 8), b1=(6,), w2=(6, 8), w3=(8, 4))
    sizes = np.logspace(-3, 0, 6)
    values["w1"] *= sizes[:, np.newaxis]
    values["b1"] *= sizes
    return graph(LAYERS, **values)


def tokens() -> onnx.ModelProto:
    return graph(TOKENS, **draw(1, table=(16, 8), w1=(8, 8)))


def quantize(
    proto: onnx.ModelProto, kept: Collection[str] = (), *, reduce_range: bool = False
) -> onnx.ModelProto:
    """Valid, and with the border of the graph, which is not modified."""
    before = proto.SerializeToString(deterministic=True)
    quantized = dynamic_graph(proto, reduce_range=reduce_range, kept=kept)
    assert proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(quantized, full_check=True)
    assert list(quantized.graph.input) == list(proto.graph.input)
    assert [value.name for value in quantized.graph.output] == ["out"]
    return quantized


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}


def integer_product(x: np.ndarray, weight: np.ndarray, bits: int = 8) -> np.ndarray:
    """x @ weight by ONNX's DynamicQuantizeLinear and symmetric weights per output channel.

    Source: ONNX Operators, DynamicQuantizeLinear, version 11; rounding to nearest even.
    """
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    step = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / step), 0, 255)
    activations = np.clip(np.rint(x / step) + zero, 0, 255) - zero
    limit = 2 ** (bits - 1) - (1 if bits == 8 else 0)
    scales = 2 * np.abs(weight).max(axis=0) / (2 * limit)
    return np.asarray(activations @ np.rint(weight / scales) * step * scales)


def test_layers_compute_in_integers_with_a_scale_for_each_output_channel() -> None:
    proto = layers()
    quantized = quantize(proto)
    assert kinds(quantized).count("MatMulInteger") == 3
    assert kinds(quantized).count("DynamicQuantizeLinear") == 3
    weights = arrays(proto)
    stored = arrays(quantized)
    assert stored["w1_transposed_scale"].shape == (6,)
    assert {str(stored[name].dtype) for name in stored if name.endswith("_quantized")} == {"int8"}
    x = np.random.default_rng(2).standard_normal((3, 8)).astype(np.float32)
    first = np.maximum(integer_product(x, weights["w1"].T) + weights["b1"], 0)
    expected = integer_product(integer_product(first, weights["w2"]), weights["w3"])
    found = run(quantized, x)
    # the same integers, but where a value lies on the edge between two: one of 255 steps each
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst <= 3 / 255, worst


def test_a_weight_that_two_layers_share_is_transposed_once() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        a = Gemm<transB = 1>(x, w, b)
        r = Relu(a)
        out = Gemm<transB = 1>(r, w, b)
    }
    """
    proto = graph(text, **draw(3, w=(8, 8), b=(8,)))
    quantized = quantize(proto)
    assert kinds(quantized).count("MatMulInteger") == 2
    x = np.random.default_rng(4).standard_normal((2, 8)).astype(np.float32)
    expected, found = run(proto, x), run(quantized, x)
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


def test_products_of_two_activations_stay_in_float_and_tables_become_int8() -> None:
    proto = tokens()
    quantized = quantize(proto)
    assert kinds(quantized).count("MatMulInteger") == 1
    assert "n_out" in {node.name for node in quantized.graph.node if node.op_type == "MatMul"}
    assert arrays(quantized)["table_quantized"].dtype.itemsize == 1
    assert "table" not in arrays(quantized)
    x = np.arange(5).reshape(1, 5)
    expected, found = run(proto, x), run(quantized, x)
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()
    assert dynamic_notes(proto, quantized) == [
        "activations are quantized at run time",
        "computed in float32: 1 MatMul",
    ]


@pytest.mark.parametrize("name", ["n_a", "n_m", "n_out"])
def test_a_kept_layer_keeps_its_float_weights(name: str) -> None:
    proto = layers()
    quantized = quantize(proto, [name])
    assert kinds(quantized).count("MatMulInteger") == 2
    (kept,) = (node for node in quantized.graph.node if node.name == name)
    assert kept.op_type == "MatMul"
    assert arrays(quantized)[kept.input[1]].dtype == np.float32
    expected = {"n_a": "1 Gemm, 1 Relu", "n_m": "1 MatMul, 1 Relu", "n_out": "1 Gemm, 1 Relu"}
    assert f"computed in float32: {expected[name]}" in dynamic_notes(proto, quantized)


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_a_cpu_that_saturates_gets_weights_in_7_bits(reduce_range: bool, largest: int) -> None:
    stored = arrays(quantize(layers(), reduce_range=reduce_range))
    quantized = [values for name, values in stored.items() if name.endswith("_quantized")]
    assert len(quantized) == 3
    assert {int(np.abs(values.astype(int)).max()) for values in quantized} == {largest}


def test_convolutions_stay_in_float_and_that_is_said() -> None:
    text = """
    net (float[1, 2, 4, 4] x) => (float[1, 3] out)
    {
        c = Conv(x, w1)
        f = Flatten(c)
        out = MatMul(f, w2)
    }
    """
    proto = graph(text, **draw(5, w1=(2, 2, 1, 1), w2=(32, 3)))
    quantized = quantize(proto)
    assert "Conv" in kinds(quantized)
    counted, advice = dynamic_notes(proto, quantized)[1:]
    assert counted == "computed in float32: 1 Conv"
    assert "0.67x of fp32" in advice


@pytest.mark.parametrize("kept", [["n_out"], []])
def test_nothing_to_quantize_is_an_error_and_not_an_fp32_file(kept: list[str]) -> None:
    operator = "MatMul(x, w)" if kept else "MatMul(x, x)"
    text = f"net (float[8, 8] x) => (float[8, 8] out) {{ out = {operator} }}"
    proto = graph(text, **(draw(6, w=(8, 8)) if kept else {}))
    with pytest.raises(ExportFailed, match="cannot be quantized at run time") as caught:
        dynamic_graph(proto, reduce_range=False, kept=kept)
    assert "int8" in str(caught.value)


def test_a_scaled_gemm_stays_in_float() -> None:
    text = """
    net (float[2, 8] x) => (float[2, 8] out)
    {
        a = Gemm<alpha = 0.5>(x, w)
        out = Gemm(a, w)
    }
    """
    proto = graph(text, **draw(7, w=(8, 8)))
    quantized = quantize(proto)
    assert kinds(quantized).count("Gemm") == 1
    x = np.random.default_rng(4).standard_normal((2, 8)).astype(np.float32)
    expected, found = run(proto, x), run(quantized, x)
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path, seed: str) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    proto = layers()
    onnx.save(proto, source)
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", RENDER, str(source), str(target)]
    subprocess.run(command, check=True, env=environment)
    expected = dynamic_graph(proto, reduce_range=False, kept=["n_m"])
    assert target.read_bytes() == expected.SerializeToString(deterministic=True)
