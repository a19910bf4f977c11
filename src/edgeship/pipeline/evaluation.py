"""Evaluation: an artifact against the float model on evaluation data, as Evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.accuracy import is_match
from edgeship.calibration.samples import SampleSet
from edgeship.contract import Contract
from edgeship.errors import ConfigurationError, Problem
from edgeship.evaluate.metrics import measure_outputs
from edgeship.evaluate.outputs import (
    collect_outputs,
    read_outputs,
    require_labels,
    write_outputs,
)
from edgeship.evidence import Evidence, describe_host, utc_now
from edgeship.measurements import ClassShare
from edgeship.pipeline.data import PROBES, ProjectData
from edgeship.pipeline.stages import host_file, read_payload
from edgeship.project import Project
from edgeship.runtimes.adapter import FloatSession
from edgeship.runtimes.protocol import load_runtime, runtime_package
from edgeship.story import Progress
from edgeship.vocabulary import Metric, Place, Rung

if TYPE_CHECKING:
    import numpy as np

    from edgeship.source.model import Model

COMMAND: Final = "edgeship build"
"""What evidence of these stages calls the command that obtained it."""
_EVIDENCE_NAME: Final = "evidence.json"


def reference(model: Model, samples: SampleSet, directory: Path, progress: Progress) -> None:
    """The float model's outputs on the evaluation data."""
    write_outputs(directory, collect_outputs(samples, model.run, on_progress=progress))


def evaluate(
    project: Project,
    emitted: Path,
    runtime: str,
    reference_directory: Path | None,
    data: ProjectData,
    directory: Path,
    progress: Progress,
    *,
    is_stand_in: bool = False,
) -> None:
    """Artifact against float model on evaluation data -> Evidence; without data, that it ran.

    Args:
        project: Of the artifact.
        emitted: The result of `emit`.
        runtime: Name in `RUNTIMES` of what runs it.
        reference_directory: The result of `reference`; None without evaluation data.
        data: Of the project.
        directory: Where the evidence is written.
        progress: Told of each sample.
        is_stand_in: Whether the runtime is not the target's own: then what it runs is the file
            that stands in for the artifact, and the artifact stays exported.
    """
    payload = read_payload(emitted)
    stand_in = runtime if is_stand_in else None
    evidence = host_evidence(runtime, data)
    if project.evaluation is not None and reference_directory is not None:
        opened = load_runtime(runtime).open(host_file(emitted, payload, stand_in))
        session = FloatSession(opened, project.model.input_specs(), payload.contract)
        outputs = collect_outputs(data.evaluation, session.run, on_progress=progress)
        evidence = measured_evidence(
            evidence, project, outputs, read_outputs(reference_directory), data
        )
    if is_stand_in:
        evidence = replace(evidence, stand_in=True, rung=Rung.EXPORTED)
    write_evidence(directory, evidence)


def host_evidence(runtime: str, data: ProjectData) -> Evidence:
    """That the probes ran in a runtime on this host; no number yet."""
    return Evidence(
        rung=Rung.RUNS,
        place=Place.HOST,
        stand_in=False,
        where={
            **describe_host(),
            "runtime": runtime_package(runtime),
            "version": load_runtime(runtime).version() or "absent",
        },
        metrics={},
        samples=PROBES,
        ci95=None,
        data_sha256=data.probes_sha256,
        command=COMMAND,
        at=utc_now(),
    )


def write_evidence(directory: Path, evidence: Evidence) -> None:
    """Keep evidence for `read_evidence`."""
    text = json.dumps(evidence.to_json(), indent=1, allow_nan=False)
    (directory / _EVIDENCE_NAME).write_text(text, encoding="utf-8")


def measured_evidence(
    evidence: Evidence,
    project: Project,
    outputs: np.ndarray,
    expected: np.ndarray,
    data: ProjectData,
) -> Evidence:
    """`evidence` with what the outputs on the evaluation data say."""
    everything = range(len(data.evaluation.samples))
    return with_measurement(evidence, project, outputs, expected, data, everything)


def with_measurement(
    evidence: Evidence,
    project: Project,
    outputs: np.ndarray,
    expected: np.ndarray,
    data: ProjectData,
    indices: Sequence[int],
) -> Evidence:
    """`evidence` with what the outputs for some of the evaluation data say.

    Args:
        evidence: That they ran.
        project: With evaluation data.
        outputs: float32[N, ...] of the artifact.
        expected: The same of the float model.
        data: Of the project.
        indices: Places of the N samples in the evaluation data.
    """
    assert project.evaluation is not None  # the caller has looked
    metric, samples = project.evaluation.metric, data.evaluation
    labels = None
    if metric == Metric.TOP1:
        known = _labels(project, samples, outputs.shape[-1])
        labels = [known[index] for index in indices]
    measured = measure_outputs(outputs, expected, labels)
    return replace(
        evidence,
        rung=Rung.MATCHES if is_match(measured.metrics, metric) else Rung.RUNS,
        metrics=measured.metrics,
        samples=measured.samples,
        ci95=measured.ci95,
        data_sha256=data.evaluation_sha256,
        worst_class=_named(measured.worst_class, project, samples),
    )


def _named(worst: ClassShare | None, project: Project, samples: SampleSet) -> ClassShare | None:
    """The class under its name: its line of the labels file, else its folder, else its id."""
    if worst is None:
        return None
    names = read_labels(project) or tuple(samples.class_names)
    label = int(worst.name)
    return replace(worst, name=names[label] if label < len(names) else worst.name)


def read_evidence(directory: Path) -> Evidence:
    """What `evaluate` wrote."""
    return Evidence.from_json(json.loads((directory / _EVIDENCE_NAME).read_bytes()))


def read_labels(project: Project) -> tuple[str, ...] | None:
    """Lines of the labels file, if there is one."""
    path = project.model.labels
    return None if path is None else tuple(path.read_text(encoding="utf-8").splitlines())


def require_label_count(project: Project, contract: Contract) -> None:
    """One line of the labels file for each score.

    Raises:
        ConfigurationError: There are more or fewer.
    """
    labels = read_labels(project)
    classes = contract.outputs[0].shape[-1]
    if labels is not None and len(labels) != classes:
        problem = Problem(
            where=str(project.model.labels),
            what="the labels are not those of the model",
            expected=f"{classes} lines, one for each score of {contract.outputs[0].name!r}",
            found=f"{len(labels)} lines",
            remedy="correct the file, or model.outputs.labels",
        )
        raise ConfigurationError(problem)


def _labels(project: Project, samples: SampleSet, classes: int) -> list[int]:
    assert project.evaluation is not None  # the caller has looked
    return require_labels(
        samples,
        classes=classes,
        labels=read_labels(project),
        where=str(project.evaluation.data),
    )
