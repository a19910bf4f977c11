"""Trains the nets of `tiny.py` on CIFAR-10's images for minutes, and makes projects of them.

This is enough to compare an integer file with its float model, and not to say how good either is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.samples import list_images, open_samples
from edgeship.digests import file_sha256
from edgeship.project_file import read_project
from edgeship.tools.bench import tiny
from edgeship.tools.bench.rig import CannotMeasure

BATCH: Final = 64
RATE: Final = 4e-3
_VEHICLES: Final = frozenset({"airplane", "automobile", "ship", "truck"})
_PROJECT: Final = """\
[model]
name = "{name}"
factory = "tiny.py:build_{name}"
weights = "{name}.pth"
[model.inputs.image]
shape = [1, 3, {size}, {size}]
[model.inputs.image.preprocess]
size = [{size}, {size}]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[calibration]
data = "calib"
samples = 500
[evaluation]
data = "test"
metric = "top1"
[targets.raspberry-pi-4]
formats = ["tflite"]
"""


@dataclass(frozen=True, kw_only=True)
class TinyNet:
    """A net of `tiny.py`, and what it is trained on."""

    name: str
    size: int
    epochs: int
    is_two_class: bool

    def build(self) -> nn.Module:
        """The net with random weights."""
        return tiny.build_mobilenet() if self.is_two_class else tiny.build_resnet8()

    def class_of(self, folder: str) -> str:
        """Of an image in a class folder of CIFAR-10: that class, or animal and vehicle."""
        if not self.is_two_class:
            return folder
        return "vehicle" if folder in _VEHICLES else "animal"


NETS: Final = (
    TinyNet(name="resnet8", size=32, epochs=10, is_two_class=False),
    TinyNet(name="mobilenet", size=96, epochs=6, is_two_class=True),
)


def make_tiny_project(net: TinyNet, directory: Path, shared: Path) -> Path:
    """Train a net and make an edgeship project of it for tflite; its project file.

    It is trained on the calibration images and on one half of the test images; the other half is
    the project's evaluation data.

    Raises:
        CannotMeasure: The data is not there.
    """
    calib, test = shared / "cifar10" / "calib", shared / "cifar10" / "test"
    for path in (calib, test):
        if not path.is_dir():
            message = f"{path} is missing: name the folder that holds the data with --shared DIR"
            raise CannotMeasure(message)
    known, unseen = images_of(test, 0), images_of(test, 1)
    link_images(net, [*images_of(calib), *known], directory / "train")
    link_images(net, images_of(calib), directory / "calib")
    link_images(net, unseen, directory / "test")
    shutil.copyfile(Path(__file__).with_name("tiny.py"), directory / "tiny.py")
    file = directory / "edgeship.toml"
    file.write_text(_PROJECT.format(name=net.name, size=net.size))
    torch.manual_seed(0)
    module, weights = net.build(), directory / f"{net.name}.pth"
    torch.save(module.state_dict(), weights)  # a project needs some to be read
    train(module, *load_images(file, directory / "train"), epochs=net.epochs)
    torch.save(module.state_dict(), weights)
    return file


def images_of(folder: Path, half: int | None = None) -> list[Path]:
    """Images of a folder with class folders: all of them, or every second one."""
    images, _ = list_images(folder)
    found = sorted(images)
    return found if half is None else found[half::2]


def link_images(net: TinyNet, images: Iterable[Path], folder: Path) -> None:
    """Put images into the net's class folders, under names that tell where they are from."""
    for image in images:
        path = image.resolve()
        place = folder / net.class_of(path.parent.name)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{path.parent.parent.name}-{path.parent.name}-{path.name}").symlink_to(path)


def load_images(project: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """float32[N, 3, H, W] as the project preprocesses them, and int64[N] class ids."""
    specs = read_project(project).model.input_specs()
    samples = open_samples(folder, specs, digest=file_sha256)
    images = [samples.load(index).inputs["image"] for index in range(len(samples.samples))]
    labels = [sample.label for sample in samples.samples]
    return np.concatenate(images), np.array(labels, np.int64)


def train(module: nn.Module, images: np.ndarray, labels: np.ndarray, *, epochs: int) -> None:
    """Train in place, by torch's global random generator, and leave the module in eval mode."""
    pixels, classes = torch.from_numpy(images), torch.from_numpy(labels)
    steps = epochs * (len(pixels) // BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(len(pixels))[: len(pixels) // BATCH * BATCH]
        for chosen in order.reshape(-1, BATCH):
            loss = F.cross_entropy(module(disturbed(pixels[chosen])), classes[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
            optimizer.step()
            schedule.step()
    module.eval()


def disturbed(batch: Tensor) -> Tensor:
    """A batch mirrored or not, and moved by up to an eighth of its size; zeros come in."""
    size = batch.shape[-1]
    if bool(torch.rand(()) < 0.5):
        batch = batch.flip(-1)
    margin = size // 8
    top, left = (int(value) for value in torch.randint(0, 2 * margin + 1, (2,)))
    moved: Any = F.pad(batch, (margin,) * 4)[..., top : top + size, left : left + size]
    return torch.as_tensor(moved)
