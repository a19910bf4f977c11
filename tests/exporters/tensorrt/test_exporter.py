import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from edgeship.artifact import RuntimeNeed
from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import Range, Ranges, solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ConfigurationError
from edgeship.exporters.protocol import Card, Lowered, Payload, Recipe, Request, Source
from edgeship.exporters.tensorrt.exporter import TensorRtExporter
from edgeship.exporters.tensorrt.lints import RULES
from edgeship.exporters.tensorrt.tensor_types import tensor_types
from edgeship.project import (
    Factory,
    FactorySource,
    FileSource,
    InputSection,
    ModelSection,
    RangePolicy,
    Rule,
)
from edgeship.runtimes.ort import OrtRuntime
from edgeship.source.model import Model
from edgeship.targets import load_target
from edgeship.vocabulary import Role

SHAPE = (1, 3, 8, 8)
BOARDS = [
    ("jetson-nano", None),
    ("jetson-agx-xavier", None),
    ("jetson-orin-nano", "jetpack-5"),
    ("jetson-orin-nano", "jetpack-6"),
    ("jetson-orin-nano", "jetpack-7"),
]
"""Every OS image of the catalogue with a TensorRT."""


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.Sequential(Block(16), Block(16))
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        out = self.pool(self.layers(torch.relu(self.stem(image)))).mean((2, 3))
        result: Tensor = self.fc(self.norm(out))
        return result


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [{"image": generator.standard_normal(SHAPE).astype(np.float32)} for _ in range(count)]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The net, lowered and observed."""

    model: Model
    lowered: Lowered
    ranges: Ranges


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    torch.manual_seed(0)
    contract = Contract(
        inputs=(TensorSpec(name="image", shape=SHAPE),),
        outputs=(TensorSpec(name="logits", shape=(1, 5)),),
    )
    module = Net().eval().requires_grad_(requires_grad=False)
    model = Model(module=module, contract=contract)
    source = Source(load=lambda: model, read_probes=lambda: samples(3))
    lowered = TensorRtExporter().lower(source, tmp_path_factory.mktemp("lowered"))
    with OrtRuntime().observe(lowered.file, lowered.observed) as session:
        named = ((str(index), inputs) for index, inputs in enumerate(samples(16)))
        statistics = observe(named, session.run)
    named_lowered = replace(lowered, card=Card(name="tiny"))
    ranges = solve_ranges(statistics, RangePolicy())
    return Ready(model=model, lowered=named_lowered, ranges=ranges)


def kit(*rules: tuple[str, str]) -> Recipe:
    made = tuple(Rule(match=match, precision=precision) for match, precision in rules)
    return Recipe(precision="kit", rules=made)


def emit(net: Ready, board: tuple[str, str | None], directory: Path, recipe: Recipe) -> Payload:
    target = load_target(board[0], os=board[1])
    return TensorRtExporter().emit(net.lowered, net.ranges, recipe, target, directory)


def request_for(name: str, recipe: Recipe, *, kind: str = "factory") -> Request:
    source: FactorySource | FileSource = FileSource(kind=kind, path=Path("/p/model"))
    if kind == "factory":
        factory = Factory(file=Path("/p/net.py"), attribute="build")
        source = FactorySource(factory=factory, weights=Path("/p/w.pt"))
    image = InputSection(name="image", shape=SHAPE, layout=None, preprocess=None)
    section = ModelSection(name="net", source=source, task=None, inputs=(image,), labels=None)
    return Request(model=section, target=load_target(name), recipe=recipe)


@pytest.mark.parametrize("kind", ["factory", "program", "onnx"])
@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-nano"])
def test_what_can_be_made_has_no_problems(name: str, kind: str) -> None:
    recipe = kit(("layers.*", "fp32"), ("fc", "fp16"))
    assert list(TensorRtExporter().problems(request_for(name, recipe, kind=kind))) == []


def test_everything_that_is_wrong_comes_together() -> None:
    recipe = Recipe(precision="int8", rules=(Rule(match="fc", precision="q4_0"),))
    found = list(TensorRtExporter().problems(request_for("jetson-orin-nano", recipe)))
    assert [problem.expected for problem in found] == ["kit", "fp16 or fp32 or int8"]
    assert found[1].found == "fc -> q4_0"


def test_a_gpu_without_int8_refuses_a_rule_that_asks_for_it() -> None:
    recipe = kit(("fc", "int8"))
    (problem,) = TensorRtExporter().problems(request_for("jetson-nano", recipe))
    assert "has no INT8" in problem.what
    assert "5.3" in problem.what
    assert list(TensorRtExporter().problems(request_for("jetson-orin-nano", recipe))) == []


def test_a_board_without_a_gpu_has_no_kit() -> None:
    (problem,) = TensorRtExporter().problems(request_for("raspberry-pi-4", kit()))
    assert problem.what == "the target has no GPU"


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


@pytest.mark.parametrize("board", BOARDS)
def test_a_kit_has_a_graph_for_each_precision_of_the_gpu(
    net: Ready, board: tuple[str, str | None], tmp_path: Path
) -> None:
    payload = emit(net, board, tmp_path, kit())
    target = load_target(board[0], os=board[1])
    assert target.gpu is not None
    names = [f"{precision}.onnx" for precision in target.gpu.precisions]
    files = {**dict.fromkeys(names, Role.MODEL), "kit.json": Role.PROGRAM}
    assert payload.files == files
    assert {path.name for path in tmp_path.iterdir()} == {*files, "stand_in.onnx"}
    version = str(target.os.tensorrt)
    assert payload.requires.any_of == (RuntimeNeed(runtime="tensorrt", min=version),)
    assert payload.contract == net.model.contract
    assert any("engine not built" in note for note in payload.notes)
    table = "exact" if version in {"8.2.1", "8.5.2"} else "derived"
    assert [note for note in payload.notes if "findings" in note] == [
        f"{name}: 0 findings of the lints of {version} ({len(RULES)} rules, operator table {table})"
        for name in names
    ]
    opset = {"8.2.1": 13, "8.5.2": 13, "10.3.0": 17, "10.16.1": 19}[version]
    for name in names:
        proto = onnx.load(tmp_path / name)
        assert [item.version for item in proto.opset_import] == [opset]
        assert not proto.graph.node[0].metadata_props
    assert (operators(tmp_path / "fp16.onnx")["LayerNormalization"] == 1) == (opset >= 17)
    if "int8.onnx" in names:
        found = operators(tmp_path / "int8.onnx")
        # image, 4 inputs of the blocks, the pool; weights of stem and blocks
        assert found["QuantizeLinear"] == found["DequantizeLinear"] == 6 + 5
        assert "int8.onnx: 5 layers with INT8 weights, 6 quantized activations" in payload.notes
    else:
        assert any("no int8.onnx: a GPU of compute capability 5.3" in n for n in payload.notes)


@pytest.mark.parametrize("board", BOARDS)
def test_the_kit_file_says_what_the_builder_needs(
    net: Ready, board: tuple[str, str | None], tmp_path: Path
) -> None:
    payload = emit(net, board, tmp_path, kit())
    target = load_target(board[0], os=board[1])
    value = json.loads((tmp_path / "kit.json").read_text())
    version = str(target.os.tensorrt)
    assert target.gpu is not None
    assert "artifact" not in value  # boards with equal facts share the file
    assert value["tensorrt"] == {
        "version": version,
        "accepts": ".".join(version.split(".")[:2]),
        "sm": target.gpu.sm,
    }
    is_typed = version.startswith("10.16")
    for graph, name in zip(value["graphs"], target.gpu.precisions, strict=True):
        assert (graph["name"], graph["file"]) == (name, f"{name}.onnx")
        assert graph["precision"] == name
        assert graph["flags"] == {
            "fp16": not is_typed,
            "int8": name == "int8" and not is_typed,
            "strongly_typed": is_typed,
        }
    assert value["schema"] == 1
    assert value["workspace_share"] == 0.25
    assert value["opset"] == onnx.load(tmp_path / "fp16.onnx").opset_import[0].version
    assert {"inputs": value["inputs"], "outputs": value["outputs"]} == payload.contract.to_json()


def test_a_norm_in_single_steps_is_kept_in_float32(net: Ready, tmp_path: Path) -> None:
    steps: dict[str, dict[str, list[str | None]]] = {}
    for board in BOARDS[1], BOARDS[3]:
        (tmp_path / board[0]).mkdir()
        emit(net, board, tmp_path / board[0], kit())
        value = json.loads((tmp_path / board[0] / "kit.json").read_text())
        for graph in value["graphs"]:
            nodes = {
                node.name for node in onnx.load(tmp_path / board[0] / graph["file"]).graph.node
            }
            assert nodes.issuperset(graph["float32_nodes"])
            steps[board[0]] = graph["float32_nodes"]
    assert len(steps["jetson-agx-xavier"]) == 9
    assert steps["jetson-orin-nano"] == {}


def test_types_are_the_graphs_where_tensorrt_is_strongly_typed(net: Ready, tmp_path: Path) -> None:
    emit(net, BOARDS[4], tmp_path, kit())
    proto = onnx.load(tmp_path / "int8.onnx")
    kinds = {item.name: item.data_type for item in proto.graph.initializer}
    scales = [node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[name] for name in scales} == {TensorProto.FLOAT16}
    assert kinds["stem.weight_float16"] == TensorProto.FLOAT16
    edges = (*proto.graph.input, *proto.graph.output)
    assert {value.type.tensor_type.elem_type for value in edges} == {TensorProto.FLOAT}


@pytest.mark.parametrize("board", BOARDS[2:])
def test_rules_keep_layers_out_of_int8(
    net: Ready, board: tuple[str, str | None], tmp_path: Path
) -> None:
    payload = emit(net, board, tmp_path, kit(("layers.0", "fp16"), ("layers.1.conv1", "fp32")))
    found = onnx.load(tmp_path / "int8.onnx").graph
    quantized = {node.input[0] for node in found.node if node.op_type == "QuantizeLinear"}
    layers = {name.removesuffix("_float16").removesuffix(".weight") for name in quantized}
    weights = {name for name in layers if name.startswith(("stem", "layers", "fc"))}
    assert weights == {"stem", "layers.1.conv2"}
    assert any("3 Conv (a rule keeps them)" in note for note in payload.notes)
    if board[1] == "jetpack-7":
        kinds = {item.name: item.data_type for item in found.initializer}
        assert kinds["layers.1.conv1.weight"] == TensorProto.FLOAT
        assert "layers.0.conv1.weight_float16" in kinds
    else:
        value = json.loads((tmp_path / "kit.json").read_text())
        kept = value["graphs"][0]["float32_nodes"]
        modules = {node.name: node.input[1] for node in onnx.load(net.lowered.file).graph.node
                   if node.op_type == "Conv"}  # fmt: skip
        convolutions = [modules[name] for name in kept if name in modules]
        assert convolutions == ["layers.1.conv1.weight"]


def beyond_half(net: Ready, *, is_cut: bool) -> Ready:
    """Its last product reaches beyond FP16, and a policy cut that off or not."""
    wide = Range(low=-1.0, high=70_000.0)
    ranges = replace(net.ranges, seen={"logits": wide})
    if not is_cut:
        ranges = replace(net.ranges, by_name={**net.ranges.by_name, "logits": wide})
    return replace(net, ranges=ranges)


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("board", BOARDS)
def test_what_fp16_does_not_hold_stays_in_fp32_in_every_kit(
    net: Ready, board: tuple[str, str | None], tmp_path: Path, is_cut: bool
) -> None:
    payload = emit(beyond_half(net, is_cut=is_cut), board, tmp_path, kit())
    described = json.loads((tmp_path / "kit.json").read_text())
    proto = onnx.load(tmp_path / "fp16.onnx")
    (last,) = [node for node in proto.graph.node if "logits" in node.output]
    if board[1] == "jetpack-7":  # the graph has the types: a product in float32, cast around
        assert last.op_type == "Gemm"
        assert {tensor_types(proto)[name].element for name in last.input} == {TensorProto.FLOAT}
        assert described["graphs"][0]["float32_nodes"] == {}
        return
    for graph in described["graphs"]:
        assert graph["float32_nodes"][last.name] == ["logits"]
    (note,) = [note for note in payload.notes if "layers stay in FP32" in note]
    assert ("cannot be told so" in note) == (described["tensorrt"]["version"] == "8.2.1")


def test_a_rule_that_keeps_everything_leaves_no_int8_graph(net: Ready, tmp_path: Path) -> None:
    payload = emit(net, BOARDS[3], tmp_path, kit(("*", "fp16")))
    assert "int8.onnx" not in payload.files
    assert "no int8.onnx: no layer of the model gains from it" in payload.notes


def test_a_rule_that_matches_nothing_is_an_error(net: Ready, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the rule matches no module"):
        emit(net, BOARDS[3], tmp_path, kit(("head", "fp16")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("board", BOARDS)
def test_the_stand_in_computes_what_the_module_does(
    net: Ready, board: tuple[str, str | None], tmp_path: Path
) -> None:
    emit(net, board, tmp_path, kit())
    session = OrtRuntime().open(tmp_path / "stand_in.onnx")
    pairs = [(net.model.run(one), session.run(one)) for one in samples(8, seed=3)]
    expected = np.concatenate([one["logits"].ravel() for one, _ in pairs])
    found = np.concatenate([one["logits"].ravel() for _, one in pairs])
    cosine = expected @ found / np.linalg.norm(expected) / np.linalg.norm(found)
    assert cosine >= (1 - 1e-6 if board[0] == "jetson-nano" else 0.98)


def test_the_same_model_gives_the_same_bytes(net: Ready, tmp_path: Path) -> None:
    contents: list[Sequence[bytes]] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        emit(net, BOARDS[3], tmp_path / name, kit())
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]
