"""Samples: image folders and arrays, opened, checked and loaded one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from edgeship.calibration.arrays import ArrayRows, open_arrays
from edgeship.calibration.preprocess import input_from_pixels, pixels_from_image
from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, Problem

IMAGE_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_LABEL: Final = "label"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample: its name for people, the SHA-256 of its bytes, its class if it has one."""

    name: str
    digest: str
    label: int | None


@dataclass(frozen=True, kw_only=True)
class LoadedSample:
    """A sample in memory: inputs by name as in the contract, and the pixels they were made of.

    `pixels` is uint8[H, W, C] before preprocessing, None for arrays that are inputs already.
    """

    inputs: dict[str, np.ndarray]
    pixels: np.ndarray | None


class SampleSet(Protocol):
    """Samples that can be loaded one at a time."""

    @property
    def samples(self) -> Sequence[Sample]:
        """All of them, in the order of their names."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders, sorted: label ids are positions in it; else empty."""
        ...

    def load(self, index: int) -> LoadedSample:
        """Load one sample; raises ConfigurationError naming it if it is damaged or not finite."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageSamples:
    """Image files for a model with one image input."""

    samples: Sequence[Sample]
    class_names: Sequence[str]
    files: Sequence[Path]
    spec: TensorSpec

    def load(self, index: int) -> LoadedSample:
        """See `SampleSet.load`."""
        assert self.spec.preprocess is not None  # open_samples requires it
        pixels = pixels_from_image(self.files[index], self.spec.preprocess)
        return LoadedSample(
            inputs={self.spec.name: input_from_pixels(pixels, self.spec)}, pixels=pixels
        )


@dataclass(frozen=True, kw_only=True)
class ArraySamples:
    """Rows of arrays named as the inputs; uint8 rows of an image input are raw pixels."""

    samples: Sequence[Sample]
    class_names: Sequence[str]
    rows: ArrayRows
    specs: Sequence[TensorSpec]

    def load(self, index: int) -> LoadedSample:
        """See `SampleSet.load`."""
        inputs, pixels = {}, None
        for spec in self.specs:
            row = self.rows.read(spec.name, index)
            if row.dtype == np.uint8 and spec.preprocess is not None:
                pixels = row
                inputs[spec.name] = input_from_pixels(row, spec)
            else:
                inputs[spec.name] = row.reshape(spec.shape)
                _require_finite(inputs[spec.name], f"{self.samples[index].name}: {spec.name}")
        return LoadedSample(inputs=inputs, pixels=pixels)


def open_samples(
    path: Path, specs: Sequence[TensorSpec], *, digest: Callable[[Path], str]
) -> SampleSet:
    """Open representative or evaluation data: an image folder, `.npy` or `.npz`.

    Args:
        path: The data.
        specs: The model's inputs.
        digest: Hex SHA-256 of a file, from a memory of them.

    Raises:
        ConfigurationError: Another kind of data, none of it, or not for these inputs.
    """
    if path.is_dir():
        found: SampleSet = _open_images(path, specs, digest)
    elif path.suffix in {".npy", ".npz"}:
        found = _open_arrays(path, specs)
    else:
        problem = Problem(
            where=str(path),
            what="this kind of data is not known",
            expected="an image folder, .npy or .npz",
            found=path.suffix or "a name without a suffix",
            remedy="save it as one of these",
        )
        raise ConfigurationError(problem)
    if not found.samples:
        raise ConfigurationError(empty_data(path))
    return found


def empty_data(path: Path) -> Problem:
    """The problem of data without a sample."""
    return Problem(
        where=str(path),
        what="the data is empty",
        expected="at least one sample",
        found="none",
        remedy=f"add samples ({', '.join(sorted(IMAGE_SUFFIXES))} in a folder)",
    )


def select_samples(samples: Sequence[Sample], count: int) -> list[int]:
    """Indices of `count` samples (all, if there are fewer), in digest order.

    The order of SHA-256 digests is random with regard to names and classes, the same on every
    machine, and hardly changes when samples are added.
    """
    order = sorted(range(len(samples)), key=lambda index: (samples[index].digest, index))
    return order[:count]


def list_images(directory: Path) -> tuple[list[Path], list[str]]:
    """Image files of a folder, sorted, and its class names ([] if it is flat).

    Hidden files and folders and files that are no images are passed over. Links to class folders
    are followed. A class folder without images is a class: it keeps its label id.

    Raises:
        ConfigurationError: Images both beside and inside of class folders, or deeper ones.
    """
    entries = {*directory.rglob("*"), *directory.glob("*/*")}  # rglob follows no links
    visible = [path for path in sorted(entries) if not _is_hidden(path.relative_to(directory))]
    images = [
        path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    ]
    depths = {len(path.relative_to(directory).parts) for path in images}
    if depths - {1, 2} or len(depths) > 1:
        odd = next(path for path in images if len(path.relative_to(directory).parts) == max(depths))
        problem = Problem(
            where=str(directory),
            what="images lie at several depths",
            expected="all in the folder, or all in one level of class folders",
            found=str(odd.relative_to(directory)),
            remedy="move them to one depth",
        )
        raise ConfigurationError(problem)
    if depths != {2}:
        return images, []
    return images, sorted(
        path.name for path in visible if path.parent == directory and path.is_dir()
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _open_images(
    directory: Path, specs: Sequence[TensorSpec], digest: Callable[[Path], str]
) -> ImageSamples:
    if len(specs) != 1 or specs[0].preprocess is None:
        problem = Problem(
            where=str(directory),
            what="an image folder needs a model with one image input",
            expected="one input with preprocess",
            found=", ".join(spec.name for spec in specs),
            remedy="add model.inputs.<name>.preprocess, or save the inputs as .npz",
        )
        raise ConfigurationError(problem)
    files, classes = list_images(directory)
    label_of = {name: label for label, name in enumerate(classes)}
    samples = [
        Sample(
            name=file.relative_to(directory).as_posix(),
            digest=digest(file),
            label=label_of.get(file.parent.name) if classes else None,
        )
        for file in files
    ]
    return ImageSamples(samples=samples, class_names=classes, files=files, spec=specs[0])


def _open_arrays(path: Path, specs: Sequence[TensorSpec]) -> ArraySamples:
    rows = open_arrays(path, specs, label=_LABEL)
    samples = []
    for index in range(rows.count):
        digest = hashlib.sha256()
        for spec in specs:
            digest.update(rows.read(spec.name, index).tobytes())
        label = int(rows.read(_LABEL, index)) if rows.has(_LABEL) else None
        samples.append(Sample(name=f"{path.name}[{index}]", digest=digest.hexdigest(), label=label))
    return ArraySamples(samples=samples, class_names=(), rows=rows, specs=specs)


def _require_finite(values: np.ndarray, where: str) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = values.size - int(np.isfinite(values).sum())
    problem = Problem(
        where=where,
        what="the sample holds NaN or infinity",
        expected="finite numbers",
        found=f"{bad} of {values.size} values ({100 * bad / values.size:.2g} %)",
        remedy="mend or remove the sample",
    )
    raise ConfigurationError(problem)


@dataclass(frozen=True, kw_only=True)
class RandomSamples:
    """Standard normal inputs for a project without data: they prove equality, not accuracy."""

    specs: Sequence[TensorSpec]
    count: int

    @property
    def samples(self) -> Sequence[Sample]:
        """See `SampleSet.samples`."""
        return [
            Sample(name=f"random[{seed}]", digest=f"random-{seed}", label=None)
            for seed in range(self.count)
        ]

    @property
    def class_names(self) -> Sequence[str]:
        """See `SampleSet.class_names`."""
        return ()

    def load(self, index: int) -> LoadedSample:
        """See `SampleSet.load`; the index is the seed."""
        generator = np.random.default_rng(index)
        inputs = {
            spec.name: generator.standard_normal(spec.shape, dtype=np.float32)
            if spec.dtype == "float32"
            else np.ones(spec.shape, spec.dtype)
            for spec in self.specs
        }
        return LoadedSample(inputs=inputs, pixels=None)


@dataclass(frozen=True, kw_only=True)
class UsableSamples:
    """Those of a set that can be loaded; `skipped` names the others and says why."""

    whole: SampleSet
    kept: Sequence[int]
    skipped: Sequence[str]

    @property
    def samples(self) -> Sequence[Sample]:
        """See `SampleSet.samples`."""
        return [self.whole.samples[index] for index in self.kept]

    @property
    def class_names(self) -> Sequence[str]:
        """See `SampleSet.class_names`."""
        return self.whole.class_names

    def load(self, index: int) -> LoadedSample:
        """See `SampleSet.load`."""
        return self.whole.load(self.kept[index])


def usable_samples(whole: SampleSet) -> UsableSamples:
    """Load every sample once to see which can be.

    Raises:
        ConfigurationError: None can.
    """
    kept, skipped = [], []
    reasons: list[Problem] = []
    for index, sample in enumerate(whole.samples):
        try:
            whole.load(index)
        except ConfigurationError as error:
            skipped.append(f"{sample.name} ({error.problems[0].what})")
            reasons += error.problems
        else:
            kept.append(index)
    if not kept:
        raise ConfigurationError(*reasons[:3])
    return UsableSamples(whole=whole, kept=kept, skipped=skipped)
