import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgeship.contract import Contract, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ExportFailed
from edgeship.runtimes.ort import OrtRuntime
from edgeship.source.graph import Graph, graph_from_model, module_of_node
from edgeship.source.model import Model, output_tensors

EXPORT = """
import sys
from pathlib import Path
from edgeship.project import Factory, FactorySource, InputSection, ModelSection
from edgeship.source.graph import graph_from_model
from edgeship.source.imports import project_imports
from edgeship.source.model import load_model
directory = Path(sys.argv[1])
source = FactorySource(
    factory=Factory(file=directory / "net.py", attribute="build"), weights=directory / "w.pt"
)
section = InputSection(name="image", shape=(1, 3, 8, 8), layout=None, preprocess=None)
with project_imports(directory):
    model = load_model(
        ModelSection(name="net", source=source, task=None, inputs=(section,), labels=None)
    )
    graph_from_model(model, Path(sys.argv[2]))
"""
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(self.stem(image).mean((2, 3)))

build = Net
"""


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.act(self.norm(self.conv(x))) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layers = nn.Sequential(Block(4), Block(4))
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 5)
        self.fc_norm = nn.BatchNorm1d(5)
        self.tokens = nn.Linear(5, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layers(self.stem(image))
        x = self.up_norm(self.up(x)).mean((2, 3))
        x = self.fc_norm(self.fc(x)).reshape(1, 1, 5)
        out: Tensor = self.tokens(x)
        return out


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return x * 2


class Conditional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,))
        return out


class Prefix(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten()[: int(x.argmax()) + 1]


class NormFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x).relu()
        return out


def randomize(module: nn.Module) -> None:
    """Seeded values everywhere, positive in variances, so that a norm changes something."""
    generator = torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.1)


def model_of(module: nn.Module, *shape: int) -> Model:
    randomize(module)
    module = module.eval().requires_grad_(requires_grad=False)
    tensors = output_tensors(module(torch.zeros(shape)))
    outputs = [TensorSpec(name=key or "logits", shape=tuple(t.shape)) for key, t in tensors.items()]
    contract = Contract(inputs=(TensorSpec(name="image", shape=shape),), outputs=tuple(outputs))
    return Model(module=module, contract=contract)


@dataclass(frozen=True, kw_only=True)
class Exported:
    model: Model
    graph: Graph
    proto: onnx.ModelProto


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = model_of(Net(), 1, 3, 8, 8)
    graph = graph_from_model(model, tmp_path_factory.mktemp("graph") / "graph.onnx")
    return Exported(model=model, graph=graph, proto=onnx.load(graph.file))


def test_the_graph_is_opset_18_of_one_domain(exported: Exported) -> None:
    assert [(item.domain, item.version) for item in exported.proto.opset_import] == [("", 18)]
    assert not exported.proto.functions


def test_names_are_those_of_the_contract_and_the_module(exported: Exported) -> None:
    graph = exported.proto.graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["logits"]
    names = {tensor.name for tensor in graph.initializer}
    assert {"stem.weight", "layers.0.conv.weight", "layers.1.conv.weight", "fc.weight"} <= names


def test_every_batchnorm_is_folded(exported: Exported) -> None:
    kinds = [node.op_type for node in exported.proto.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 3


def test_the_graph_equals_the_module(exported: Exported) -> None:
    session = OrtRuntime().open(exported.graph.file)
    generator = np.random.default_rng(0)
    for _ in range(5):
        inputs = {"image": generator.standard_normal((1, 3, 8, 8)).astype(np.float32)}
        expected, found = exported.model.run(inputs)["logits"], session.run(inputs)["logits"]
        # a few hundred float32 products of magnitude 1: far less than 1e-5
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_digest_is_that_of_the_file(exported: Exported) -> None:
    assert exported.graph.sha256 == file_sha256(exported.graph.file)


def test_metadata_says_only_where_a_node_comes_from(exported: Exported) -> None:
    proto = exported.proto
    assert not proto.metadata_props
    assert not proto.graph.metadata_props
    assert not proto.doc_string
    keys = {item.key for node in proto.graph.node for item in node.metadata_props}
    assert keys == {"pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"}
    assert not any(value.metadata_props for value in proto.graph.value_info)
    assert not any(tensor.metadata_props for tensor in proto.graph.initializer)


def local_texts() -> list[bytes]:
    import edgeship

    places = [Path.home(), Path(__file__), Path(torch.__file__).parents[1], edgeship.__path__[0]]
    return [str(place).encode() for place in places if len(str(place)) > 1]


def test_no_local_path_is_in_the_bytes(exported: Exported) -> None:
    content = exported.graph.file.read_bytes()
    for text in [*local_texts(), b"test_graph.py", b"site-packages", b"stack_trace"]:
        assert text not in content, text


def test_no_local_path_is_in_the_branches_of_an_if(tmp_path: Path) -> None:
    graph = graph_from_model(model_of(Conditional(), 1, 4), tmp_path / "graph.onnx")
    content = graph.file.read_bytes()
    kinds = [node.op_type for node in onnx.load(graph.file).graph.node]
    assert "If" in kinds
    for text in [*local_texts(), b"test_graph.py", b"site-packages", b"stack_trace"]:
        assert text not in content, text


def test_two_exports_in_one_process_are_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    again = graph_from_model(model_of(Net(), 1, 3, 8, 8), tmp_path / "other-name.onnx")
    assert again.sha256 == exported.graph.sha256


@pytest.mark.slow
def test_the_bytes_depend_on_no_hash_seed_directory_zone_or_process(tmp_path: Path) -> None:
    digests = set()
    for seed, zone in (("1", "UTC"), ("2", "Pacific/Auckland")):
        directory = tmp_path / f"project-{seed}"
        directory.mkdir()
        (directory / "net.py").write_text(NET)
        torch.manual_seed(0)
        namespace: dict[str, type[nn.Module]] = {}
        exec(NET, namespace)  # the net as the project has it
        torch.save(namespace["Net"]().state_dict(), directory / "w.pt")
        subprocess.run(
            [sys.executable, "-c", EXPORT, str(directory), str(tmp_path / f"{seed}.onnx")],
            cwd=directory,
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
        )
        digests.add(file_sha256(tmp_path / f"{seed}.onnx"))
    assert len(digests) == 1


def test_nodes_know_their_module_also_through_a_folded_batchnorm(exported: Exported) -> None:
    found = {
        (node.op_type, module_of_node(node))
        for node in exported.proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Sigmoid")
    }
    assert found == {
        ("Conv", "stem"),
        ("Conv", "layers.0.conv"),
        ("Conv", "layers.1.conv"),
        ("Relu", "layers.0.act"),
        ("Relu", "layers.1.act"),
        ("Sigmoid", "layers.0"),
        ("Sigmoid", "layers.1"),
        ("ConvTranspose", "up"),
        ("Gemm", "fc"),
        ("MatMul", "tokens"),
    }


def test_every_module_of_a_node_is_one_of_the_modules(exported: Exported) -> None:
    modules = {name for name, _ in exported.model.module.named_modules()}
    assert {module_of_node(node) for node in exported.proto.graph.node} <= modules


def test_a_node_without_metadata_belongs_to_the_root() -> None:
    assert module_of_node(onnx.helper.make_node("Relu", ["x"], ["y"])) == ""


def test_scopes_stay_readable(exported: Exported) -> None:
    for node in exported.proto.graph.node:
        for item in node.metadata_props:
            assert isinstance(ast.literal_eval(item.value), list)


def test_a_data_dependent_branch_is_refused_with_its_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportFailed) as caught:
        graph_from_model(model_of(Branches(), 1, 4), tmp_path / "graph.onnx")
    text = str(caught.value)
    assert int(caught.value.exit_code) == 3
    assert "data-dependent" in text
    assert "if x.sum() > 0" in text
    assert text.count("\n") < 4
    assert len(text) < 800
    assert "\x1b" not in text
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_batchnorm_that_nothing_precedes_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="BatchNorm was not folded"):
        graph_from_model(model_of(NormFirst(), 1, 3, 4, 4), tmp_path / "graph.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_output_whose_shape_follows_from_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="graph: logits: the shape of an output depends"):
        graph_from_model(model_of(Prefix(), 1, 4), tmp_path / "graph.onnx")
    assert list(tmp_path.iterdir()) == []
