"""A small project that goes the whole way: a net that tells bright images from dark ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from PIL import Image

MODEL: Final = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 2)

    def forward(self, image):
        x = self.bn1(self.conv1(image)).relu()
        x = x + self.conv2(x).relu()
        return self.head(x.mean((2, 3)))


def build(shapes):
    return Net(shapes["head.weight"][1])
"""

PROJECT: Final = """\
[model]
name = "bright"
factory = "model.py:build"
weights = "bright.safetensors"
[model.inputs.image]
shape = [1, 3, 8, 8]
preprocess = { size = [8, 8], mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }
[model.outputs]
labels = "labels.txt"
[calibration]
data = "calib"
samples = 24
[evaluation]
data = "test"
metric = "top1"
[targets.raspberry-pi-4]
formats = ["onnx"]
"""


@pytest.fixture(scope="session", autouse=True)
def no_rewrites() -> Iterator[None]:
    """Builds try no rewrites but in the tests that are about them: each costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeship.pipeline.equalization.REWRITES", {})
        yield


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project before any build; copied for each test."""
    directory = tmp_path_factory.mktemp("template") / "project"
    directory.mkdir()
    (directory / "model.py").write_text(MODEL)
    (directory / "edgeship.toml").write_text(PROJECT)
    (directory / "labels.txt").write_text("bright\ndark\n")
    _write_images(directory / "calib", count=24, seed=1)
    _write_images(directory / "test", count=40, seed=2)
    _write_weights(directory / "bright.safetensors", width=4)
    return directory


@pytest.fixture
def project(project_template: Path, tmp_path: Path) -> Path:
    """Directory of a fresh copy of the project."""
    return Path(shutil.copytree(project_template, tmp_path / "project"))


@pytest.fixture(scope="session")
def built_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after one build."""
    from edgeship.cli import main

    directory = tmp_path_factory.mktemp("built") / "project"
    shutil.copytree(project_template, directory)
    assert main(["build", "--quiet", "--project", str(directory / "edgeship.toml")]) == 0
    return directory


@pytest.fixture
def built(built_template: Path, tmp_path: Path) -> Path:
    """Directory of a fresh copy of the built project, its stage cache included."""
    return Path(shutil.copytree(built_template, tmp_path / "project", symlinks=True))


@pytest.fixture
def unfit_calibration(built: Path) -> str:
    """A data folder of the built project that misleads: dim images, where bright ones come."""
    folder = built / "dim"
    folder.mkdir()
    generator = np.random.default_rng(3)
    for index in range(8):
        pixels = generator.integers(0, 12, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder.name


def _write_images(directory: Path, *, count: int, seed: int) -> None:
    """Noise around two brightnesses, in class folders."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        name, level = (("bright", 180), ("dark", 75))[index % 2]
        pixels = generator.normal(level, 25, (8, 8, 3)).clip(0, 255).astype(np.uint8)
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")


def _write_weights(file: Path, *, width: int) -> None:
    """Averages of brightness, with seeded noise so that no two channels are equal."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def around(value: float, *shape: int) -> torch.Tensor:
        return value * (1 + 0.2 * torch.rand(shape, generator=generator))

    save_file(
        {
            "conv1.weight": around(1 / 27, width, 3, 3, 3),
            "bn1.weight": around(1.0, width),
            "bn1.bias": around(1.5, width),
            "bn1.running_mean": torch.zeros(width),
            "bn1.running_var": torch.ones(width),
            "conv2.weight": around(1 / (18 * width), width, width, 3, 3),
            "conv2.bias": around(0.1, width),
            "head.weight": torch.cat([around(1.0, 1, width), -around(1.0, 1, width)]),
            "head.bias": torch.tensor([-10.0, 10.0]),
        },
        file,
    )
