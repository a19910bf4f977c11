"""The stages: each takes typed values and writes its result into an empty directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.budget import is_match
from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import Ranges, solve_ranges
from edgeship.calibration.samples import SampleSet, select_samples
from edgeship.calibration.table import HEADER_NAME, Table, read_table, write_table
from edgeship.contract import Contract
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError, Problem
from edgeship.evaluate.golden import run_case, write_golden_pack
from edgeship.evaluate.metrics import measure_outputs
from edgeship.evaluate.outputs import (
    collect_outputs,
    read_outputs,
    require_labels,
    write_outputs,
)
from edgeship.evidence import ClassShare, Evidence, describe_host, utc_now
from edgeship.exporters.protocol import Exporter, Lowered, Payload, Source
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import package_versions
from edgeship.project import Project, RangePolicy
from edgeship.runtimes.protocol import load_runtime
from edgeship.story import Progress
from edgeship.vocabulary import Metric, Place, Role, Rung

if TYPE_CHECKING:
    import numpy as np

    from edgeship.source.model import Model

_LOWERED_NAME: Final = "lowered.json"
_PAYLOAD_NAME: Final = "payload.json"
_GOLDEN_NAME: Final = "files.json"
_EVIDENCE_NAME: Final = "evidence.json"
_COMMAND: Final = "edgeship build"


def lower(exporter: Exporter, model: Model, data: ProjectData, directory: Path) -> None:
    """Model -> Lowered."""
    probes = [sample.inputs for _, sample in data.probes()]
    lowered = exporter.lower(Source(model=model, probes=probes), directory)
    _write_json(directory / _LOWERED_NAME, lowered.to_json())


def read_lowered(directory: Path) -> Lowered:
    """What `lower` wrote."""
    return Lowered.from_json(json.loads((directory / _LOWERED_NAME).read_bytes()), directory)


def observe_samples(
    lowered: Lowered, samples: SampleSet, count: int, directory: Path, progress: Progress
) -> None:
    """Lowered x representative data -> Statistics."""
    chosen = select_samples(samples.samples, count)

    def feed() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for done, index in enumerate(chosen):
            yield samples.samples[index].name, samples.load(index).inputs
            progress(done + 1, len(chosen))

    with load_runtime(lowered.runtime).observe(lowered.file, lowered.observed) as session:
        statistics = observe(feed(), session.run)
    table = Table(
        observed_sha256=lowered.sha256,
        sample_digests=[samples.samples[index].digest for index in chosen],
        preprocessing={
            spec.name: spec.preprocess.to_json()
            for spec in lowered.contract.inputs
            if spec.preprocess is not None
        },
        tools=package_versions((lowered.runtime, "numpy", "pillow")),
        statistics=statistics,
    )
    write_table(directory, table)


def solve(lowered: Lowered, statistics: Path, policy: RangePolicy) -> Ranges:
    """Statistics + policy -> Ranges."""
    table = read_table(statistics, observed_sha256=lowered.sha256)
    return solve_ranges(table.statistics, policy)


def statistics_sha256(statistics: Path) -> str:
    """Identity of a table: of its header, which holds the digest of its arrays."""
    return file_sha256(statistics / HEADER_NAME)


def emit(
    exporter: Exporter,
    lowered: Lowered,
    ranges: Ranges | None,
    item: PlannedArtifact,
    directory: Path,
) -> None:
    """Lowered + Ranges + Recipe + Target -> files."""
    payload = exporter.emit(lowered, ranges, item.recipe, item.target, directory)
    _write_json(directory / _PAYLOAD_NAME, payload.to_json())


def read_payload(directory: Path) -> Payload:
    """What `emit` wrote."""
    return Payload.from_json(json.loads((directory / _PAYLOAD_NAME).read_bytes()))


def golden(model: Model, emitted: Path, data: ProjectData, directory: Path) -> None:
    """Files -> golden pack: a few samples through the artifact and the float model."""
    payload = read_payload(emitted)
    session = load_runtime(payload.requires.any_of[0].runtime).open(model_file(emitted, payload))
    cases = [run_case(name, sample, session.run, model.run) for name, sample in data.probes()]
    names = write_golden_pack(directory, cases, payload.contract, output_steps=payload.output_steps)
    _write_json(directory / _GOLDEN_NAME, names)


def read_golden(directory: Path) -> list[str]:
    """Names of the files that `golden` wrote."""
    names: list[str] = json.loads((directory / _GOLDEN_NAME).read_bytes())
    return names


def reference(model: Model, samples: SampleSet, directory: Path, progress: Progress) -> None:
    """The float model's outputs on the evaluation data."""
    write_outputs(directory, collect_outputs(samples, model.run, on_progress=progress))


def evaluate(
    project: Project,
    emitted: Path,
    reference_directory: Path | None,
    data: ProjectData,
    directory: Path,
    progress: Progress,
) -> None:
    """Artifact against float model on evaluation data -> Evidence; without data, that it ran."""
    payload = read_payload(emitted)
    runtime = payload.requires.any_of[0].runtime
    where = {
        **describe_host(),
        "runtime": runtime,
        "version": package_versions((runtime,))[runtime],
    }
    if project.evaluation is None or reference_directory is None:
        evidence = Evidence(
            rung=Rung.RUNS,
            place=Place.HOST,
            stand_in=False,
            where=where,
            metrics={},
            samples=len(data.probes()),
            ci95=None,
            data_sha256=data.probes_sha256,
            command=_COMMAND,
            at=utc_now(),
        )
    else:
        samples = data.evaluation
        session = load_runtime(runtime).open(model_file(emitted, payload))
        outputs = collect_outputs(samples, session.run, on_progress=progress)
        is_top1 = project.evaluation.metric == Metric.TOP1
        labels = _labels(project, samples, outputs.shape[-1]) if is_top1 else None
        measured = measure_outputs(outputs, read_outputs(reference_directory), labels)
        matches = is_match(measured.metrics, project.evaluation.metric)
        evidence = Evidence(
            rung=Rung.MATCHES if matches else Rung.RUNS,
            place=Place.HOST,
            stand_in=False,
            where=where,
            metrics=measured.metrics,
            samples=measured.samples,
            ci95=measured.ci95,
            data_sha256=data.evaluation_sha256,
            command=_COMMAND,
            at=utc_now(),
            worst_class=_named(measured.worst_class, project, samples),
        )
    _write_json(directory / _EVIDENCE_NAME, evidence.to_json())


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


def model_file(emitted: Path, payload: Payload) -> Path:
    """The one file of role `model`."""
    name = next(name for name, role in payload.files.items() if role is Role.MODEL)
    return emitted / name


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


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")
