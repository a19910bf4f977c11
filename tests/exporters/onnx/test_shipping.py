from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeship.artifact import RuntimeNeed
from edgeship.errors import ExportFailed
from edgeship.exporters.onnx.shipping import write_shipping_file
from edgeship.exporters.onnx_file import forecast_memory
from edgeship.runtimes.ort import OrtRuntime

TEXT = """
<ir_version: 10, opset_import: ["" : 18], producer_name: "pytorch", producer_version: "2.13.0">
net (float[1, 8] x) => (float[1, 4] out)
<float[8, 4] w>
{
    a = Relu(x)
    b = MatMul(a, w)
    out = Relu(b)
}
"""


def make_proto() -> onnx.ModelProto:
    """With everything in it that only a build needs."""
    proto = onnx.parser.parse_model(TEXT)
    del proto.graph.initializer[:]
    weight = np.arange(32, dtype=np.float32).reshape(8, 4) / 16 - 1
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    proto = onnx.shape_inference.infer_shapes(proto)
    proto.metadata_props.add(key="built", value="/home/someone/model.py")
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'fc']")
    return proto


def test_the_file_is_ir_8_and_opset_18_and_holds_nothing_of_the_build(tmp_path: Path) -> None:
    write_shipping_file(make_proto(), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    assert proto.ir_version == 8
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert (proto.producer_name, proto.producer_version) == ("edgeship", "")
    assert not proto.metadata_props
    assert not proto.graph.value_info
    assert not any(node.metadata_props for node in proto.graph.node)
    assert b"/home/someone" not in (tmp_path / "model.onnx").read_bytes()


def test_the_file_loads_and_computes_what_it_did(tmp_path: Path) -> None:
    proto = make_proto()
    onnx.save(proto, tmp_path / "before.onnx")
    write_shipping_file(proto, tmp_path / "after.onnx")
    x = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    before, after = (
        OrtRuntime().open(tmp_path / name).run({"x": x})["out"]
        for name in ("before.onnx", "after.onnx")
    )
    assert np.array_equal(before, after)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_shipping_file(make_proto(), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_board_needs_the_first_runtime_with_opset_18(tmp_path: Path) -> None:
    requires = write_shipping_file(make_proto(), tmp_path / "model.onnx")
    assert requires.any_of == (RuntimeNeed(runtime="onnxruntime", min="1.14"),)
    assert requires.memory_bytes == forecast_memory(make_proto())


@pytest.mark.parametrize("defect", ["type", "edge"])
def test_an_invalid_model_is_refused_and_not_written(tmp_path: Path, defect: str) -> None:
    proto = make_proto()
    if defect == "type":
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    else:
        proto.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ExportFailed, match=r"model\.onnx: the emitted file is not valid ONNX"):
        write_shipping_file(proto, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_memory_is_the_weights_and_the_most_that_lives_at_once() -> None:
    # weights 8 * 4 * 4 = 128; x and a live together: 32 + 32; then a and b: 32 + 16; b and out: 32
    assert forecast_memory(make_proto()) == 128 + 64


def test_a_tensor_that_is_read_later_lives_on() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[1, 8] x) => (float[1, 8] out)
    {
        a = Relu(x)
        b = Relu(a)
        c = Relu(b)
        out = Add(c, a)
    }
    """
    # 32 bytes each: x, a | a, b | a, b, c | a, c, out
    assert forecast_memory(onnx.parser.parse_model(text)) == 96


def test_a_residual_that_is_read_twice_by_one_node_is_freed_once() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[1, 8] x) => (float[1, 8] out)
    {
        a = Mul(x, x)
        b = Mul(a, a)
        out = Mul(b, b)
    }
    """
    assert forecast_memory(onnx.parser.parse_model(text)) == 64


def test_views_have_no_memory_of_their_own_and_keep_what_they_view() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[1, 2, 4] x) => (float[1, 8] out)
    {
        a = Flatten(x)
        b = Relu(a)
        out = Add(a, b)
    }
    """
    # 32 bytes each: x | x, b | x, b, out
    assert forecast_memory(onnx.parser.parse_model(text)) == 96


def test_integers_count_by_their_width() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (uint8[1, 8] x) => (uint8[1, 8] out)
    { out = Max(x, x) }
    """
    assert forecast_memory(onnx.parser.parse_model(text)) == 16


def test_weights_count_however_they_are_stored() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[1, 4] x) => (float[1, 4] out)
    { out = Add(x, w) }
    """)
    proto.graph.initializer.append(
        onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4], [1, 2, 3, 4])
    )
    assert not proto.graph.initializer[0].raw_data
    assert forecast_memory(proto) == 16 + 32
