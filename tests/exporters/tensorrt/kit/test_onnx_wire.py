import contextlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper

from edgeship.exporters.tensorrt.kit.onnx_wire import read_graph
from edgeship.exporters.tensorrt.kit.stopped import Stopped


@pytest.mark.parametrize("is_quantized", [True, False])
def test_operators_and_opset_are_those_that_onnx_reads(
    tmp_path: Path, kits: SimpleNamespace, is_quantized: bool
) -> None:
    path = tmp_path / "model.onnx"
    kits.write_graph(path, is_quantized=is_quantized, opset=13)
    found = read_graph(str(path))
    assert found.operators == Counter(node.op_type for node in onnx.load(path).graph.node)
    assert found.opset == 13
    assert found.has_quantization is is_quantized


def test_subgraphs_and_other_domains_are_read(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
            helper.make_node("Magic", ["x"], ["m"], domain="com.example", strength=0.5, count=7),
        ],
        "outer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [1])],
    )
    opsets = [helper.make_opsetid("com.example", 3), helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    found = read_graph(str(path))
    assert found.operators == {"If": 1, "Magic": 1, "QuantizeLinear": 2}
    assert found.opset == 17
    assert not found.has_quantization


def test_a_file_that_ends_early_is_no_model(tmp_path: Path, kits: SimpleNamespace) -> None:
    path = tmp_path / "model.onnx"
    kits.write_graph(path, is_quantized=True)
    content = path.read_bytes()
    whole = read_graph(str(path))
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with contextlib.suppress(Stopped):
            assert read_graph(str(path)).operators == whole.operators  # the graph was read by then


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"no model at all", b"\x3a\x00"])
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(Stopped, match=r"^model\.onnx is no ONNX model") as caught:
        read_graph(str(path))
    assert caught.value.outcome == "damaged"
