import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, IntegrityRefused
from edgeship.project import FileSource, InputSection, ModelSection
from edgeship.source.graph import graph_from_model
from edgeship.source.model import Model, load_model
from edgeship.source.program import load_program
from edgeship.source.program_archive import check_program
from edgeship.source.program_text import is_dimension, is_plain_tree

SHAPE = (1, 2, 6, 6)
Change = Callable[[dict[str, Any]], None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout()
        self.register_buffer("scale", torch.full((1, 3), 2.0), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            pooled = self.norm(self.conv(image)).relu().mean((2, 3))
        scaled: Tensor = self.drop(pooled).reshape(image.shape[0], -1) * self.scale
        return scaled


class RunsCommand:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def make_net(*, is_training: bool = False) -> Net:
    torch.manual_seed(0)
    return Net().train(is_training)


def save_program(file: Path, module: nn.Module, *, is_dynamic: bool = False) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.zeros((2, *SHAPE[1:]) if is_dynamic else SHAPE)
    shapes = ({0: batch},) if is_dynamic else None
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), file)


@pytest.fixture(scope="module")
def static_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("static") / "model.pt2"
    save_program(file, make_net().eval())
    return file


@pytest.fixture(scope="module")
def dynamic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dynamic") / "model.pt2"
    save_program(file, make_net().eval(), is_dynamic=True)
    return file


def spec(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", shape=shape, dtype=dtype)


def load_as_model(file: Path, shape: tuple[int, ...] = SHAPE) -> Model:
    image = InputSection(name="image", shape=shape, layout=None, preprocess=None)
    source = FileSource(kind="program", path=file)
    section = ModelSection(name="m", source=source, task=None, inputs=(image,), labels=None)
    return load_model(section)


def rewritten(file: Path, target: Path, change: dict[str, bytes]) -> Path:
    """The archive with some members replaced or added, by the names below its first folder."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    members |= {f"{root}/{name}": content for name, content in change.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def member(file: Path, name: str) -> Any:  # noqa: ANN401 - JSON
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return json.loads(archive.read(f"{root}/{name}"))


def with_json(file: Path, target: Path, name: str, change: Change) -> Path:
    value = member(file, name)
    change(value)
    return rewritten(file, target, {name: json.dumps(value).encode()})


def refusal(file: Path) -> str:
    with pytest.raises(IntegrityRefused) as caught:
        load_program(file, [spec()])
    assert int(caught.value.exit_code) == 9
    assert all(str(file) in problem.where and problem.remedy for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["static_file", "dynamic_file"])
def test_a_program_computes_what_its_module_does(kind: str, request: pytest.FixtureRequest) -> None:
    model = load_as_model(request.getfixturevalue(kind))
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    expected = make_net().eval()(torch.tensor(image)).detach().numpy()
    assert np.array_equal(model.run({"image": image})["output"], expected)
    assert model.contract.outputs[0].shape == (1, 3)
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


@pytest.mark.parametrize("kind", ["static_file", "dynamic_file"])
def test_a_program_becomes_a_static_graph(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import onnx

    model = load_as_model(request.getfixturevalue(kind))
    proto = onnx.load(graph_from_model(model, tmp_path / "g.onnx").file)
    (value,) = proto.graph.input
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == list(SHAPE)
    assert {tensor.name for tensor in proto.graph.initializer} >= {"conv.weight", "conv.bias"}


@pytest.mark.parametrize("shape", [(1, 2, 7, 6), (1, 2, 6), (2, 2, 6, 6)])
def test_another_shape_is_refused_with_both(static_file: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"expected float32\[1, 2, 6, 6\]") as caught:
        load_program(static_file, [spec(shape)])
    assert caught.value.problems[0].where == "edgeship.toml: model.inputs.image"


def test_an_open_dimension_takes_what_is_in_its_range(dynamic_file: Path) -> None:
    load_program(dynamic_file, [spec((64, *SHAPE[1:]))])
    for shape in ((65, *SHAPE[1:]), (1, 2, 6, 7)):
        with pytest.raises(ConfigurationError, match="another input"):
            load_program(dynamic_file, [spec(shape)])


def test_other_types_and_numbers_of_inputs_are_refused(static_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="float32"):
        load_program(static_file, [spec(dtype="int64")])
    for inputs in ([], [spec(), spec()]):
        with pytest.raises(ConfigurationError, match="1 by position: image"):
            load_program(static_file, inputs)


def test_inputs_by_keyword_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(make_net().eval(), (), {"image": torch.zeros(SHAPE)})
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ConfigurationError, match="by keyword"):
        load_program(tmp_path / "m.pt2", [spec()])


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    save_program(tmp_path / "m.pt2", make_net(is_training=True))
    with pytest.raises(ConfigurationError, match=r"training mode.*aten\.batch_norm.*aten\.dropout"):
        load_program(tmp_path / "m.pt2", [spec()])


@pytest.mark.parametrize(
    "name",
    [
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/model.so",
        "data/weights/other.pt",
        "models/other.json",
        "data/executorch/x",
    ],
)
def test_a_member_that_is_no_plain_tensor_is_refused(
    static_file: Path, tmp_path: Path, name: str
) -> None:
    file = rewritten(static_file, tmp_path / "m.pt2", {name: pickle.dumps(1)})
    assert name in refusal(file)


@pytest.mark.parametrize(
    "name",
    ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_in_the_archive_that_runs_code_is_refused(
    static_file: Path, tmp_path: Path, name: str, is_zip: bool
) -> None:
    marker, buffer = tmp_path / "ran", io.BytesIO()
    value = (RunsCommand(marker),)
    torch.save(value, buffer, _use_new_zipfile_serialization=is_zip)
    file = rewritten(static_file, tmp_path / "m.pt2", {name: buffer.getvalue()})
    assert "nothing of it ran" in refusal(file)
    assert not marker.exists()


@pytest.mark.parametrize("table", ["weights", "constants"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_pickle", True),
        ("use_pickle", None),
        ("path_name", "custom_obj_0"),
        ("path_name", "opaque_obj_0"),
        ("path_name", "../models/model.json"),
        ("path_name", None),
    ],
)
def test_a_pickled_tensor_is_refused(
    static_file: Path, tmp_path: Path, table: str, key: str, value: object
) -> None:
    def change(config: dict[str, Any]) -> None:
        next(iter(config["config"].values()))[key] = value

    name = f"data/{table}/model_{table}_config.json"
    file = with_json(static_file, tmp_path / "m.pt2", name, change)
    assert "pickled objects" in refusal(file)


def test_a_tensor_of_terabytes_without_bytes_is_refused(static_file: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["conv.bias"]["path_name"] = "weight_99"
        config["config"]["conv.bias"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 44}]

    name = "data/weights/model_weights_config.json"
    file = with_json(static_file, tmp_path / "m.pt2", name, change)
    file = rewritten(file, tmp_path / "n.pt2", {"data/weights/weight_99": b""})
    assert "claim more elements" in refusal(file)


ATTACK = "__import__('os').system('touch {marker}')"


def attack_guards(value: dict[str, Any], text: str) -> None:
    value["guards_code"] = [text]


def attack_dimension(value: dict[str, Any], text: str) -> None:
    sizes = value["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
    sizes[0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}


def attack_range(value: dict[str, Any], text: str) -> None:
    value["range_constraints"][text] = {"min_val": 1, "max_val": 2}


def attack_node_name(value: dict[str, Any], text: str) -> None:
    value["graph_module"]["graph"]["nodes"][0]["name"] = f"a = {text}; b"


def attack_value_name(value: dict[str, Any], text: str) -> None:
    values = value["graph_module"]["graph"]["tensor_values"]
    values[f"a = {text}; b"] = values.pop("image")


def attack_argument_name(value: dict[str, Any], text: str) -> None:
    signature = value["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"image={text}"]


def attack_target(value: dict[str, Any], text: str) -> None:
    node = value["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.serialization.os.system"
    node["inputs"] = [{"name": "c", "arg": {"as_string": text}, "kind": 1}]


def attack_file(value: dict[str, Any], text: str) -> None:
    value["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"
    assert text


def attack_tree(value: dict[str, Any], text: str) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": text}])
    spec = {"type": "builtins.dict", "context": context, "children_spec": []}
    signature = value["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = json.dumps([1, spec])


@pytest.mark.parametrize(
    "attack",
    [
        attack_guards,
        attack_dimension,
        attack_range,
        attack_node_name,
        attack_value_name,
        attack_argument_name,
        attack_target,
        attack_file,
        attack_tree,
    ],
)
def test_text_that_torch_would_run_is_refused_and_runs_nothing(
    dynamic_file: Path, tmp_path: Path, attack: Callable[[dict[str, Any], str], None]
) -> None:
    marker = tmp_path / "ran"
    file = with_json(
        dynamic_file,
        tmp_path / "m.pt2",
        "models/model.json",
        lambda value: attack(value, ATTACK.format(marker=marker)),
    )
    assert "run as code" in refusal(file)
    assert not marker.exists()


def test_guards_are_never_made_whatever_they_say(dynamic_file: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"math.ceil(torch.save({{}}, {str(marker)!r}) or 1) == 1"
    file = with_json(
        dynamic_file,
        tmp_path / "m.pt2",
        "models/model.json",
        lambda value: attack_guards(value, text),
    )
    model = load_as_model(file)
    model.run({"image": np.zeros(SHAPE, np.float32)})
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 9, b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_program_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        check_program(tmp_path / "m.pt2")


def test_weights_are_no_program(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "m.pt2")
    with pytest.raises(ConfigurationError, match="no program"):
        check_program(tmp_path / "m.pt2")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    share=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_flipped_bytes_load_or_are_refused(
    dynamic_file: Path, flips: list[tuple[float, int]], share: float
) -> None:
    content = bytearray(dynamic_file.read_bytes())
    for place, byte in flips:
        content[int(place * len(content))] = byte
    file = dynamic_file.with_stem("flipped")
    file.write_bytes(content[: int(len(content) * share)])
    with contextlib.suppress(ConfigurationError, IntegrityRefused):
        load_program(file, [spec()])


JSON_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(path=st.lists(st.integers(0, 30), min_size=1, max_size=9), value=JSON_VALUES)
def test_any_value_anywhere_in_the_text_loads_or_is_refused(
    dynamic_file: Path, path: list[int], value: object
) -> None:
    text = member(dynamic_file, "models/model.json")
    place: Any = text
    for step in path:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = keys[step % len(keys)]
        if not isinstance(place[key], dict | list):
            place[key] = value
            break
        place = place[key]
    changed = {"models/model.json": json.dumps(text).encode()}
    file = rewritten(dynamic_file, dynamic_file.with_stem("changed"), changed)
    with contextlib.suppress(ConfigurationError, IntegrityRefused):
        load_program(file, [spec()])


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "2*s77 + 1",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "FloorDiv(s0 - 1, 2)",
        "Max(1, s0)",
        "-int_oo",
    ],
)
def test_dimensions_of_ordinary_programs_are_plain(text: str) -> None:
    assert is_dimension(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "s0.__class__",
        "open('x')",
        "Symbol('a b')",
        "9**9**9",
        "Pow(9, 99)",
        "lambda: 1",
        "[s0 for s0 in s1]",
        "os",
        "S",
        "(1).real",
        "1" * 30,
        "s0 +",
        "s0 + " * 500 + "s0",
        "",
    ],
)
def test_dimensions_that_are_code_are_not_plain(text: str) -> None:
    assert not is_dimension(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(max_size=30))
def test_any_text_is_judged(text: str) -> None:
    is_dimension(text)


def test_trees_of_ordinary_programs_are_plain() -> None:
    leaf: dict[str, object] = {"type": None, "context": None, "children_spec": []}
    for kind, context in (
        ("builtins.tuple", "null"),
        ("builtins.dict", '["a"]'),
        ("collections.OrderedDict", '["a"]'),
        ("transformers.modeling_outputs.BaseModelOutput", '["a"]'),
    ):
        spec = {"type": kind, "context": context, "children_spec": [leaf]}
        assert is_plain_tree(json.dumps([1, spec]))
    for kind in ("collections.defaultdict", "collections.namedtuple", "a b", "os;x"):
        spec = {"type": kind, "context": "null", "children_spec": [leaf]}
        assert not is_plain_tree(json.dumps([1, spec]))
    assert not is_plain_tree("[]")
