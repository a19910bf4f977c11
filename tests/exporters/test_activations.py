import onnx
import pytest

from edgeship.exporters.activations import clamped_tensors, observed_tensors


def parse(body: str, *, outputs: str = "float[1, 4] out") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>\n'
        f"net (float[1, 4] x) => ({outputs}) "
        "<float lowest = {0.0}, float highest = {6.0}, float[4] b = {1.0, 2.0, 3.0, 4.0}>\n"
        f"{{ {body} }}"
    )


def test_inputs_and_every_float_result_are_observed_in_the_files_order() -> None:
    proto = parse("a = Add(x, b) t = Tanh(a) out = Mul(t, a)")
    assert observed_tensors(proto) == ("x", "a", "t", "out")
    assert clamped_tensors(proto) == {}


@pytest.mark.parametrize("clamp", ["Relu(a)", "Clip(a, lowest, highest)"])
def test_what_only_a_clamp_reads_has_its_range(clamp: str) -> None:
    proto = parse(f"a = Add(x, b) r = {clamp} out = Tanh(r)")
    assert clamped_tensors(proto) == {"a": "r"}
    assert observed_tensors(proto) == ("x", "r", "out")


def test_what_another_node_reads_too_is_observed() -> None:
    proto = parse("a = Add(x, b) r = Relu(a) out = Mul(r, a)")
    assert clamped_tensors(proto) == {}
    assert observed_tensors(proto) == ("x", "a", "r", "out")


def test_a_tensor_that_one_node_reads_twice_is_observed() -> None:
    proto = parse("a = Add(x, b) m = Mul(a, a) out = Relu(m)")
    assert clamped_tensors(proto) == {"m": "out"}
    assert "a" in observed_tensors(proto)


def test_an_output_is_observed_though_a_clamp_reads_it() -> None:
    proto = parse("a = Add(x, b) out = Relu(a)", outputs="float[1, 4] out, float[1, 4] a")
    assert clamped_tensors(proto) == {}
    assert set(observed_tensors(proto)) == {"x", "a", "out"}


def test_an_input_that_only_a_clamp_reads_has_its_range() -> None:
    proto = parse("r = Relu(x) out = Tanh(r)")
    assert clamped_tensors(proto) == {"x": "r"}
    assert observed_tensors(proto) == ("r", "out")


def test_clamps_in_a_row_are_chained() -> None:
    proto = parse("a = Add(x, b) r = Relu(a) c = Clip(r, lowest, highest) out = Tanh(c)")
    assert clamped_tensors(proto) == {"a": "r", "r": "c"}
    assert observed_tensors(proto) == ("x", "c", "out")


def test_integers_booleans_and_weights_are_not_observed() -> None:
    body = "g = Greater(x, b) i = ArgMax<axis = 1>(x) f = Cast<to = 1>(g) out = Add(f, b)"
    assert observed_tensors(parse(body)) == ("x", "f", "out")
