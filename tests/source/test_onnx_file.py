import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, ExportFailed, IntegrityRefused
from edgeship.project import FileSource, InputSection, ModelSection
from edgeship.runtimes.protocol import load_runtime
from edgeship.source.graph import Graph, graph_from_model, module_of_node
from edgeship.source.model import Model, load_model
from edgeship.source.onnx_data import external_files
from edgeship.source.onnx_file import load_onnx, read_onnx
from edgeship.source.onnx_graph import scopes_of

SHAPE = (1, 2, 6, 6)
OPEN = load_runtime("onnxruntime").open


def constants() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    return {
        "body.0.weight": normal(3, 2, 3, 3),
        "scale": normal(3),
        "shift": normal(3),
        "mean": normal(3),
        "var": np.abs(normal(3)) + 0.5,
        "fc.weight": normal(4, 48),
    }


def make_proto(opset: int = 13, *, batch: int | str = "batch") -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, Dropout, Identity, a flattening by the batch's size, Gemm."""
    nodes = [
        helper.make_node("Conv", ["image", "body.0.weight"], ["c"], name="/body/body.0/Conv"),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"], name="/body/body.2/Relu"),
        helper.make_node("Identity", ["r"], ["i"]),
        helper.make_node("Shape", ["image"], ["s"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
        helper.make_node("Gather", ["s", "zero"], ["b"]),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Unsqueeze", ["b", "axes"], ["b1"])
        if opset > 12
        else helper.make_node("Unsqueeze", ["b"], ["b1"], axes=[0]),
        helper.make_node("Constant", [], ["rest"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Concat", ["b1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["i", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight"], ["logits"], transB=1, doc_string="/home/me"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *SHAPE[1:]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    weights = [numpy_helper.from_array(array, name) for name, array in constants().items()]
    graph = helper.make_graph(nodes, "net", [image], [logits], weights, doc_string="/home/me")
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = 7
    proto.metadata_props.add(key="author", value="/home/me")
    return proto


def section_for(file: Path, *, name: str = "image") -> ModelSection:
    image = InputSection(name=name, shape=SHAPE, layout=None, preprocess=None)
    source = FileSource(kind="onnx", path=file)
    return ModelSection(name="m", source=source, task=None, inputs=(image,), labels=None)


def load(file: Path, proto: onnx.ModelProto | None = None) -> Model:
    if proto is not None:
        onnx.save(proto, file)
    return load_model(section_for(file), OPEN)


def sample() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)}


def graph_of(model: Model, directory: Path) -> Graph:
    return graph_from_model(model, directory / "graph.onnx")


def spec(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", shape=shape, dtype=dtype)


def refusal(proto: onnx.ModelProto, directory: Path, image: TensorSpec | None = None) -> str:
    onnx.save(proto, directory / "m.onnx")
    with pytest.raises(ConfigurationError) as caught:
        load_onnx(directory / "m.onnx", [image or spec()], OPEN)
    assert all(problem.where and problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def test_the_reference_is_the_file_as_it_is(tmp_path: Path) -> None:
    model = load(tmp_path / "m.onnx", make_proto())
    expected = OPEN(tmp_path / "m.onnx").run(sample())
    assert np.array_equal(model.run(sample())["logits"], expected["logits"])
    (output,) = model.contract.outputs
    assert (output.name, output.shape, output.dtype) == ("logits", (1, 4), "float32")


@pytest.mark.parametrize("opset", [11, 13, 15, 17, 18, 19, 21, 23])
def test_every_opset_becomes_the_same_folded_graph_of_opset_18(tmp_path: Path, opset: int) -> None:
    model = load(tmp_path / "m.onnx", make_proto(opset))
    graph = graph_of(model, tmp_path)
    proto = onnx.load(graph.file)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Relu", "Reshape", "Gemm"]
    difference = OPEN(graph.file).run(sample())["logits"] - model.run(sample())["logits"]
    assert np.abs(difference).max() < 1e-4


def test_the_graph_is_static_and_says_nothing_of_its_maker(tmp_path: Path) -> None:
    graph = graph_of(load(tmp_path / "m.onnx", make_proto()), tmp_path)
    proto = onnx.load(graph.file)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == list(SHAPE)
    assert [dim.dim_value for dim in logits.type.tensor_type.shape.dim] == [1, 4]
    assert b"/home/me" not in graph.file.read_bytes()
    assert proto.ir_version == 8


def test_nodes_and_weights_keep_the_names_by_which_rules_find_them(tmp_path: Path) -> None:
    proto = onnx.load(graph_of(load(tmp_path / "m.onnx", make_proto()), tmp_path).file)
    modules = {node.op_type: module_of_node(node) for node in proto.graph.node}
    assert modules == {"Conv": "body.0", "Relu": "body.2", "Reshape": "", "Gemm": "fc"}
    names = [node.name for node in proto.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_the_same_file_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    graph = graph_of(load(tmp_path / "m.onnx", make_proto()), tmp_path)
    script = (
        "import sys, onnx, hashlib\n"
        "from edgeship.contract import TensorSpec\n"
        "from edgeship.source import onnx_file, onnx_graph, graph\n"
        "spec = TensorSpec(name='image', shape=(1, 2, 6, 6))\n"
        "from pathlib import Path\n"
        "proto = onnx_graph.canonical_proto(onnx_file.read_onnx(Path(sys.argv[1])), [spec], 18)\n"
        "graph._canonicalise(proto)\n"
        "print(hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, tmp_path / "m.onnx"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == graph.sha256
    assert hashlib.sha256(graph.file.read_bytes()).hexdigest() == graph.sha256


def test_weights_among_the_inputs_are_weights(tmp_path: Path) -> None:
    proto = make_proto()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        )
    graph = graph_of(load(tmp_path / "m.onnx", proto), tmp_path)
    assert [value.name for value in onnx.load(graph.file).graph.input] == ["image"]


def test_operators_that_opset_18_has_not_are_named(tmp_path: Path) -> None:
    proto = make_proto(20)
    proto.graph.node[2].op_type = "Gelu"
    with pytest.raises(ExportFailed, match="opset 20 with Gelu") as caught:
        graph_of(load(tmp_path / "m.onnx", proto), tmp_path)
    assert "opset_version=18" in caught.value.problems[0].remedy


def test_a_local_function_is_inlined(tmp_path: Path) -> None:
    proto = make_proto(18)
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    proto.functions.append(helper.make_function("own", "Act", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node[2].op_type, proto.graph.node[2].domain = "Act", "own"
    graph = graph_of(load(tmp_path / "m.onnx", proto), tmp_path)
    assert [node.op_type for node in onnx.load(graph.file).graph.node][1] == "Relu"


def test_what_would_fold_into_gigabytes_is_left_to_the_runtime(tmp_path: Path) -> None:
    proto = make_proto(18, batch=1)
    size = numpy_helper.from_array(np.array([1 << 34]), "size")
    proto.graph.initializer.append(size)
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
        helper.make_node("Add", ["logits0", "total"], ["logits"]),
    ]
    proto.graph.node[-1].output[0] = "logits0"
    proto.graph.node.extend(nodes)
    onnx.save(proto, tmp_path / "m.onnx")
    from edgeship.source.onnx_graph import canonical_proto

    canonical = canonical_proto(read_onnx(tmp_path / "m.onnx"), [spec()], 18)
    assert "ConstantOfShape" in {node.op_type for node in canonical.graph.node}


@pytest.mark.parametrize("shape", [(1, 2, 6, 7), (1, 2, 6), (1, 3, 6, 6)])
def test_another_shape_is_refused_with_both(tmp_path: Path, shape: tuple[int, ...]) -> None:
    text = refusal(make_proto(), tmp_path, spec(shape))
    assert "expected float32[batch, 2, 6, 6]" in text
    assert "model.inputs.image" in text


def test_a_fixed_batch_of_another_size_is_refused(tmp_path: Path) -> None:
    assert "expected float32[8, 2, 6, 6]" in refusal(make_proto(batch=8), tmp_path)


def test_another_name_or_type_of_input_is_refused(tmp_path: Path) -> None:
    image = TensorSpec(name="x", shape=SHAPE)
    assert "expected image, found x" in refusal(make_proto(), tmp_path, image)
    assert "float32[" in refusal(make_proto(), tmp_path, spec(dtype="int64"))


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    proto = make_proto()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "q"))
    proto.graph.node[3].CopyFrom(helper.make_node("QuantizeLinear", ["r", "q"], ["u"]))
    proto.graph.node.insert(4, helper.make_node("DequantizeLinear", ["u", "q"], ["i"]))
    assert "found DequantizeLinear, QuantizeLinear" in refusal(proto, tmp_path)


def test_an_operator_that_the_runtime_has_not_is_refused(tmp_path: Path) -> None:
    proto = make_proto()
    proto.graph.node[2].op_type, proto.graph.node[2].domain = "Strange", "org.example"
    proto.opset_import.append(helper.make_opsetid("org.example", 1))
    assert "org.example" in refusal(proto, tmp_path) or "Strange" in refusal(proto, tmp_path)


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    proto = make_proto()
    proto.graph.node[0].input[0] = "nowhere"
    assert "no valid ONNX" in refusal(proto, tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 9, bytes(100), b"\xff" * 64])
def test_a_file_that_is_no_onnx_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        read_onnx(tmp_path / "m.onnx")


def save_external(file: Path, location: str, *, nested: bool = False) -> None:
    """The model with one tensor in another file, which is written unless it lies elsewhere."""
    proto = make_proto(batch=1)
    onnx.external_data_helper.convert_model_to_external_data(
        proto, location="data.bin", size_threshold=0
    )
    content = b""
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        values = {"location": location, "offset": str(len(content)), "length": str(len(raw))}
        for key, value in values.items():
            tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")
        content += raw
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(proto.SerializeToString())
    place = file.parent / location
    if ".." not in location and not Path(location).is_absolute() and not nested:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@pytest.mark.parametrize("location", ["m.onnx.data", "weights/0.bin"])
def test_data_beside_the_file_is_part_of_it(tmp_path: Path, location: str) -> None:
    save_external(tmp_path / "m.onnx", location)
    assert external_files(tmp_path / "m.onnx") == [tmp_path / location]
    model = load(tmp_path / "m.onnx")
    graph = graph_of(model, tmp_path)
    difference = OPEN(graph.file).run(sample())["logits"] - model.run(sample())["logits"]
    assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize(
    "location",
    ["../secret", "a/../../secret", "/etc/passwd", "..", "", "a\\..\\b", "C:secret", "a\nb"],
)
def test_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))
    save_external(tmp_path / "sub/m.onnx", location, nested=True)
    with pytest.raises(IntegrityRefused, match="outside of its directory"):
        read_onnx(tmp_path / "sub/m.onnx")


def test_data_behind_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))
    save_external(tmp_path / "sub/m.onnx", "m.data", nested=True)
    (tmp_path / "sub/m.data").symlink_to(tmp_path / "secret")
    with pytest.raises(IntegrityRefused, match="outside of its directory"):
        read_onnx(tmp_path / "sub/m.onnx")


def test_data_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    save_external(tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"m\.onnx"):
        load(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    with pytest.raises(ConfigurationError, match=r"m\.data: a file with tensors .* missing"):
        read_onnx(tmp_path / "m.onnx")


def test_data_of_a_tensor_in_an_attribute_is_found(tmp_path: Path) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    inner = helper.make_graph([helper.make_node("Constant", [], ["a"], value=tensor)], "g", [], [])
    outer = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    proto = helper.make_model(helper.make_graph([outer], "g", [], []))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(IntegrityRefused, match="secret"):
        external_files(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("/conv1/Conv", ["", "conv1"]),
        ("/layer1/layer1.0/conv1/Conv", ["", "layer1", "layer1.0", "layer1.0.conv1"]),
        ("/body/body.0/body.0.1/Conv", ["", "body", "body.0", "body.0.1"]),
        ("/net/body/body.0/body.0.1/Conv", ["", "net", "net.body", "net.body.0", "net.body.0.1"]),
        ("Conv_3", [""]),
        ("", [""]),
    ],
)
def test_a_nodes_name_tells_its_modules(name: str, scopes: list[str]) -> None:
    assert scopes_of(name) == scopes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("whole") / "m.onnx"
    save_external(file, "m.data")
    return file


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    share=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_flipped_bytes_load_or_are_refused(
    whole: Path, flips: list[tuple[float, int]], share: float
) -> None:
    content = bytearray(whole.read_bytes())
    for place, byte in flips:
        content[int(place * len(content))] = byte
    file = whole.with_stem("flipped")
    file.write_bytes(content[: int(len(content) * share)])
    with contextlib.suppress(ConfigurationError, ExportFailed, IntegrityRefused):
        graph_of(load_model(section_for(file), OPEN), file.parent)


def test_a_session_is_all_that_is_asked_of_a_runtime(tmp_path: Path) -> None:
    class Fake:
        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"logits": inputs["image"].sum((1, 2, 3))[:, None]}

    onnx.save(make_proto(), tmp_path / "m.onnx")
    model = load_model(section_for(tmp_path / "m.onnx"), lambda _: Fake())
    assert model.run({"image": np.ones(SHAPE, np.float32)})["logits"].tolist() == [[72.0]]
