"""The project's data: its identity for stage keys, and its samples once they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from edgeship.calibration.samples import (
    LoadedSample,
    RandomSamples,
    SampleSet,
    empty_data,
    list_images,
    open_samples,
    select_samples,
    usable_samples,
)
from edgeship.calibration.texts import TEXT_SUFFIXES, open_texts, read_texts
from edgeship.digests import DigestMemory, json_sha256
from edgeship.errors import ConfigurationError, Problem
from edgeship.evaluate.outputs import classes_needed
from edgeship.project import Project
from edgeship.vocabulary import Metric

PROBES: Final = 4
"""Samples that prove a lowered file and fill the golden pack."""


def data_problems(project: Project) -> Iterator[Problem]:
    """What can be seen of the data without opening a sample: its kind, emptiness, classes."""
    calibration, evaluation = project.calibration, project.evaluation
    for section in (calibration, evaluation):
        is_text = section is not None and section.data.suffix in TEXT_SUFFIXES
        if section is not None and is_text and project.model.text is None:
            yield _text_input_needed(section.data)
    if calibration is not None and calibration.data.is_dir():
        yield from _folder_problems(calibration.data, needs_classes=False)
    if evaluation is not None and evaluation.data.is_dir():
        needs_classes = evaluation.metric == Metric.TOP1
        yield from _folder_problems(evaluation.data, needs_classes=needs_classes)


def _folder_problems(path: Path, *, needs_classes: bool) -> Iterator[Problem]:
    try:
        images, classes = list_images(path)
    except ConfigurationError as error:
        yield from error.problems
        return
    if not images:
        yield empty_data(path)
    elif needs_classes and not classes:
        yield classes_needed(str(path), found="images without class folders")


def _text_input_needed(path: Path) -> Problem:
    return Problem(
        where=str(path),
        what="texts need a model with a text input",
        expected="[model.inputs.<name>] with tokenizer and length",
        remedy="name the tokenizer, or save the inputs as .npz",
    )


class Data(StrEnum):
    """The two kinds of data that a project has."""

    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


class ProjectData:
    """Representative and evaluation data of a project; opened when first asked for."""

    def __init__(self, project: Project, digests: DigestMemory, *, skips_bad: bool = False) -> None:
        self._project = project
        self._digests = digests
        self._specs = project.model.input_specs()
        self.skips_bad = skips_bad
        self.skipped: list[str] = []
        """Samples that were left out of what was opened so far."""

    @cached_property
    def calibration(self) -> SampleSet:
        """Representative samples; the project must have some."""
        assert self._project.calibration is not None  # the plan refuses int8 without
        return self._open(self._project.calibration.data)

    @cached_property
    def evaluation(self) -> SampleSet:
        """Evaluation samples; the project must have some."""
        assert self._project.evaluation is not None  # only asked for where there is a section
        return self._open(self._project.evaluation.data)

    def texts(self, kind: Data) -> tuple[str, ...]:
        """The data as texts, in their order; empty where it is none."""
        project = self._project
        section = project.calibration if kind is Data.CALIBRATION else project.evaluation
        text = project.model.text
        if section is None or text is None or section.data.suffix not in TEXT_SUFFIXES:
            return ()
        return read_texts(section.data, text.name)

    @cached_property
    def calibration_sha256(self) -> str:
        """Identity of the representative data."""
        assert self._project.calibration is not None  # as above
        return self._sha256(self._project.calibration.data)

    @cached_property
    def evaluation_sha256(self) -> str:
        """Identity of the evaluation data, names and thereby classes included."""
        assert self._project.evaluation is not None  # as above
        return self._sha256(self._project.evaluation.data)

    @cached_property
    def probes_sha256(self) -> str:
        """Identity of `probes()`, found without opening the samples."""
        path = self._probe_path
        if path is None:
            return "random"
        if path.is_file():
            return self._digests.sha256(path)
        images, _ = list_images(path)
        return json_sha256(sorted(self._digests.sha256(image) for image in images)[:PROBES])

    def probes(self) -> list[tuple[str, LoadedSample]]:
        """The first four samples in digest order, with their names: evaluation data if any."""
        if self._probe_path is None:
            samples: SampleSet = RandomSamples(specs=self._specs, count=PROBES)
        else:
            samples = self.calibration if self._project.evaluation is None else self.evaluation
        chosen = select_samples(samples.samples, PROBES)
        return [(samples.samples[index].name, samples.load(index)) for index in chosen]

    @property
    def _probe_path(self) -> Path | None:
        section = self._project.evaluation or self._project.calibration
        return None if section is None else section.data

    def _open(self, path: Path) -> SampleSet:
        if not self.skips_bad:
            return self._open_whole(path)
        usable = usable_samples(self._open_whole(path))
        self.skipped += [f"{path.name}/{name}" for name in usable.skipped]
        return usable

    def _open_whole(self, path: Path) -> SampleSet:
        text = self._project.model.text
        if path.suffix not in TEXT_SUFFIXES:
            return open_samples(path, self._specs, digest=self._digests.sha256)
        if text is None:
            raise ConfigurationError(_text_input_needed(path))
        return open_texts(path, text)

    def _sha256(self, path: Path) -> str:
        """Digest of a file, or of the names and digests of the images in a folder."""
        if path.is_file():
            return self._digests.sha256(path)
        images, classes = list_images(path)
        named = [
            [image.relative_to(path).as_posix(), self._digests.sha256(image)] for image in images
        ]
        return json_sha256({"classes": classes, "images": named})
