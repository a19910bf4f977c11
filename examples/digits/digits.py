"""scikit-learn's digits as folders of PNG files, and those folders as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CALIB_SAMPLES: Final = 256
TEST_SAMPLES: Final = 540
CLASSES: Final = 10
MEAN: Final = 0.3063
STD: Final = 0.3765
"""Mean and standard deviation of the train pixels in 0..1; edgeship.toml has the same two."""

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def split_digits(seed: int) -> Mapping[str, tuple[Images, Labels]]:
    """The 1,797 scans as train, calib and test, with no scan in two of them.

    Each split has the classes in the proportions of the whole. Images are uint8[N, 8, 8], their
    inks 0..16 spread over 0..255.
    """
    inks, labels = load_digits(return_X_y=True)
    images = np.round(inks.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = labels.astype(np.int64)
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_SAMPLES, stratify=labels, random_state=seed
    )
    train, calib, train_labels, calib_labels = train_test_split(
        rest, rest_labels, test_size=CALIB_SAMPLES, stratify=rest_labels, random_state=seed
    )
    return {
        "train": (train, train_labels),
        "calib": (calib, calib_labels),
        "test": (test, test_labels),
    }


def write_folders(directory: Path, images: Images, labels: Labels) -> None:
    """Write `directory/<label>/<number>.png`, 8-bit grey, one folder for each class."""
    for label in range(CLASSES):
        (directory / str(label)).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(directory / str(label) / f"{number:04}.png")


def read_folders(directory: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32[N, 1, 8, 8], preprocessed as edgeship does it, and labels int64[N]."""
    files = sorted(directory.glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file), dtype=np.float32) for file in files])
    pixels = (images[:, None] / 255 - MEAN) / STD
    labels = [int(file.parent.name) for file in files]
    return torch.from_numpy(pixels.astype(np.float32)), torch.tensor(labels)


def write_labels(file: Path) -> None:
    """Write one label a line, in the order of the class folders."""
    file.write_text("".join(f"{label}\n" for label in range(CLASSES)), encoding="utf-8")
