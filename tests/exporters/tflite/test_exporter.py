from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeship.calibration.observe import observe
from edgeship.contract import Contract, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.protocol import Lowered, Recipe, Request, Source
from edgeship.exporters.tflite.exporter import TfliteExporter
from edgeship.project import (
    Factory,
    FactorySource,
    FileSource,
    InputSection,
    ModelSection,
    Rule,
)
from edgeship.runtimes.adapter import FloatSession
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.source.model import Model
from edgeship.targets import Target, load_target
from edgeship.vocabulary import Layout, Role

IMAGE = TensorSpec(name="image", shape=(1, 3, 8, 8), layout=Layout.NCHW)
LOGITS = TensorSpec(name="logits", shape=(1, 5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        logits: Tensor = self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class Drifting(Net):
    """Computes something else every time that it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, image: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(image) + self.runs


def model_of(module: nn.Module) -> Model:
    module = module.eval().requires_grad_(requires_grad=False)
    return Model(module=module, contract=Contract(inputs=(IMAGE,), outputs=(LOGITS,)), notes=("n",))


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [
        {"image": generator.standard_normal(IMAGE.shape).astype(np.float32)} for _ in range(count)
    ]


@dataclass(frozen=True)
class Net8:
    model: Model
    lowered: Lowered


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net8:
    torch.manual_seed(0)
    model = model_of(Net())
    source = Source(load=lambda: model, read_probes=lambda: samples(3))
    return Net8(model, TfliteExporter().lower(source, tmp_path_factory.mktemp("lowered")))


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("raspberry-pi-4")


def request_for(target: Target, recipe: Recipe, source: FactorySource | FileSource) -> Request:
    image = InputSection(name="image", shape=IMAGE.shape, layout=Layout.NCHW, preprocess=None)
    section = ModelSection(name="net", source=source, task=None, inputs=(image,), labels=None)
    return Request(model=section, target=target, recipe=recipe)


FACTORY = FactorySource(
    factory=Factory(file=Path("/p/net.py"), attribute="build"), weights=Path("/p/w.pt")
)


@pytest.mark.parametrize("source", [FACTORY, FileSource(kind="program", path=Path("/p/m.pt2"))])
def test_modules_and_programs_become_tflite(
    target: Target, source: FactorySource | FileSource
) -> None:
    assert not list(
        TfliteExporter().problems(request_for(target, Recipe(precision="int8"), source))
    )


def test_an_onnx_file_is_refused_with_what_would_do(target: Target) -> None:
    source = FileSource(kind="onnx", path=Path("/p/model.onnx"))
    (problem,) = TfliteExporter().problems(request_for(target, Recipe(precision="int8"), source))
    assert problem.found == "model.onnx"
    assert "factory" in problem.remedy


@pytest.mark.parametrize(
    ("architecture", "count"), [("BertModel", 0), ("LlamaForCausalLM", 1), (None, 1)]
)
def test_of_a_hugging_face_directory_only_an_encoder_will_do(
    target: Target, tmp_path: Path, architecture: str | None, count: int
) -> None:
    if architecture is not None:
        (tmp_path / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}')
    source = FileSource(kind="hf", path=tmp_path)
    problems = list(
        TfliteExporter().problems(request_for(target, Recipe(precision="fp32"), source))
    )
    assert len(problems) == count
    assert all("gguf" in problem.remedy or architecture is None for problem in problems)


def test_all_problems_come_together(target: Target) -> None:
    rules = (Rule(match="fc", precision="int8"), Rule(match="fc", precision="q4_0"))
    source = FileSource(kind="onnx", path=Path("/p/model.onnx"))
    recipe = Recipe(precision="fp16", rules=rules)
    assert len(list(TfliteExporter().problems(request_for(target, recipe, source)))) == 3


def test_lowering_gives_a_file_that_is_bound_to_its_digest(net: Net8) -> None:
    lowered = net.lowered
    assert lowered.file.name == "graph.tflite"
    assert lowered.sha256 == file_sha256(lowered.file)
    assert (lowered.runtime, lowered.layout, lowered.notes) == ("litert", Layout.NHWC, ("n",))
    assert lowered.contract.inputs[0].shape == (1, 8, 8, 3)
    assert lowered.observed == ("image", "stem/conv_2d", "/mean", "logits")


def test_what_is_observed_is_what_the_module_computes(net: Net8) -> None:
    inputs, lowered = samples(16), net.lowered
    with LiteRtRuntime().observe(lowered.file, lowered.observed) as session:
        run = FloatSession(session, net.model.contract.inputs, lowered.contract).run
        named = ((str(index), item) for index, item in enumerate(inputs))
        statistics = observe(named, run, lowered.layout)
    assert set(statistics) == set(lowered.observed)
    layer = net.model.module.stem
    assert isinstance(layer, nn.Module)
    stem = nn.Sequential(layer, nn.ReLU())
    expected = torch.cat([stem(torch.from_numpy(item["image"])) for item in inputs])
    found = statistics["stem/conv_2d"]
    assert found.maximum == pytest.approx(float(expected.max()), rel=1e-5)
    assert found.channel_absmax == pytest.approx(expected.abs().amax((0, 2, 3)).numpy(), rel=1e-5)


def test_fp32_is_the_lowered_file(net: Net8, target: Target, tmp_path: Path) -> None:
    payload = TfliteExporter().emit(net.lowered, None, Recipe(precision="fp32"), target, tmp_path)
    assert payload.files == {"model.tflite": Role.MODEL}
    assert payload.contract == net.lowered.contract
    assert {need.runtime for need in payload.requires.any_of} >= {"litert"}
    session = LiteRtRuntime().open(tmp_path / "model.tflite")
    run = FloatSession(session, net.model.contract.inputs, payload.contract).run
    for inputs in samples(4, seed=1):
        expected = net.model.run(inputs)["logits"]
        # sums in another order: a few units of float32's last place
        assert run(inputs)["logits"] == pytest.approx(
            expected, abs=2e-6 * float(np.abs(expected).max())
        )


def test_a_rule_that_finds_nothing_is_refused(net: Net8, target: Target, tmp_path: Path) -> None:
    recipe = Recipe(precision="fp32", rules=(Rule(match="layers", precision="fp32"),))
    with pytest.raises(ConfigurationError, match="matches no module"):
        TfliteExporter().emit(net.lowered, None, recipe, target, tmp_path)


@pytest.mark.slow
def test_a_module_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    source = Source(load=lambda: model_of(Drifting()), read_probes=lambda: samples(2))
    with pytest.raises(ExportFailed, match="computes something else than the model"):
        TfliteExporter().lower(source, tmp_path)


def test_looking_at_it_imports_no_vendor_package() -> None:
    code = (
        "import sys; from edgeship.exporters.tflite.exporter import TfliteExporter;"
        "vendors = ('torch', 'numpy', 'litert_torch', 'flatbuffers', 'ai_edge_litert');"
        "print([name for name in vendors if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


_LOWER = """
import sys
from pathlib import Path
import torch
from torch import nn
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Source
from edgeship.exporters.tflite.exporter import TfliteExporter
from edgeship.source.model import Model
from edgeship.vocabulary import Layout
torch.manual_seed(0)
def block():
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.SiLU())
net = nn.Sequential(block(), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
net = nn.Sequential(net, nn.Linear(3, 4)).eval()
inputs = (TensorSpec(name="image", shape=(1, 3, 8, 8), layout=Layout.NCHW),)
contract = Contract(inputs=inputs, outputs=(TensorSpec(name="logits", shape=(1, 4)),))
source = Source(load=lambda: Model(module=net, contract=contract), read_probes=list)
print(TfliteExporter().lower(source, Path(sys.argv[1])).sha256)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "77"):
        directory = tmp_path / seed
        directory.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _LOWER, str(directory)],
            cwd=directory,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        digests.add(done.stdout)
        digests.add(file_sha256(directory / "graph.tflite") + "\n")
    assert len(digests) == 1
