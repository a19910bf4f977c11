"""Runs a model over samples and keeps its first output for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.calibration.samples import SampleSet
from edgeship.errors import ConfigurationError, Problem

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
_NAME: Final = "outputs.npy"


def collect_outputs(
    samples: SampleSet, run: Run, *, on_progress: Callable[[int, int], None]
) -> np.ndarray:
    """float32[N, ...] of the first output, one row for each sample in the set's order.

    The batch axis of 1 is dropped. `on_progress` is told (done, all) after each sample.
    """
    count = len(samples.samples)
    rows: np.ndarray | None = None
    for index in range(count):
        output = next(iter(run(samples.load(index).inputs).values()))
        if rows is None:
            rows = np.empty((count, *output.shape[1:]), np.float32)
        rows[index] = output[0]
        on_progress(index + 1, count)
    assert rows is not None  # open_samples refuses an empty set
    return rows


def write_outputs(directory: Path, outputs: np.ndarray) -> None:
    """Keep outputs in a stage's directory."""
    np.save(directory / _NAME, outputs, allow_pickle=False)


def read_outputs(directory: Path) -> np.ndarray:
    """Inverse of `write_outputs`."""
    outputs: np.ndarray = np.load(directory / _NAME, allow_pickle=False)
    return outputs


def require_labels(
    samples: SampleSet, *, classes: int, labels: tuple[str, ...] | None, where: str
) -> list[int]:
    """The class of each sample, checked against the model's outputs and the labels file.

    Raises:
        ConfigurationError: Samples without a class, more classes than scores, or class folders
            whose names are the labels in another order.
    """
    found = [sample.label for sample in samples.samples]
    present = [label for label in found if label is not None]
    names = tuple(samples.class_names)
    if len(present) < len(found):
        without = f"{len(found) - len(present)} of {len(found)} samples without one"
        raise ConfigurationError(classes_needed(where, found=without))
    if max(present) >= classes or min(present) < 0 or len(names) > classes:
        problem = Problem(
            where=where,
            what="the data has more classes than the model has scores",
            expected=f"labels 0..{classes - 1}",
            found=f"labels {min(present)}..{max(*present, len(names) - 1)}",
            remedy="evaluate on the classes that the model was trained on",
        )
        raise ConfigurationError(problem)
    if labels is not None and set(names) <= set(labels) and names:
        positions = [labels.index(name) for name in names]
        if positions != list(range(len(names))):
            problem = Problem(
                where=where,
                what="the class folders are the labels in another order",
                expected=", ".join(labels),
                found=", ".join(names),
                remedy="sorted folder names are label ids: prefix them with their number",
            )
            raise ConfigurationError(problem)
    return present


def classes_needed(where: str, *, found: str) -> Problem:
    """The problem of top-1 on data without classes."""
    return Problem(
        where=where,
        what='metric "top1" needs the class of each sample',
        expected="class folders, or an npz with an array 'label'",
        found=found,
        remedy='sort the samples into class folders, or choose metric = "agreement"',
    )
