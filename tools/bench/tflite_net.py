"""One net of the benchmark `tflite.py`: built, looked into and timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.artifact import Artifact, read_artifact
from edgeship.calibration.samples import open_samples
from edgeship.digests import file_sha256
from edgeship.evaluate.speed import SpeedRatio, compare_speed
from edgeship.evidence import Evidence, evidence_by_runtime
from edgeship.exporters.tflite.flatbuffer import operator_name, operators, read_model, type_name
from edgeship.project_file import read_project
from edgeship.runtimes.adapter import encode_inputs
from edgeship.runtimes.delegation import examine_delegation, fallen_out
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE, load_runtime
from edgeship.tools.bench.rig import REPOSITORY, CannotMeasure, build_project
from edgeship.vocabulary import Role

if TYPE_CHECKING:
    import numpy as np

RUNTIME: Final = "litert"
_TFLITE_PYTHON: Final = REPOSITORY / ".cache" / "tflite" / "bin" / "python"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an integer file holds: bytes, and what it should not hold."""

    bytes: int
    float_bytes: int
    float_tensors: int
    transposes: int
    conversions: int


@dataclass(frozen=True, kw_only=True)
class Net:
    """One net's integer file, measured."""

    name: str
    content: Content
    evidence: Mapping[str, Evidence]
    speed: SpeedRatio
    outside: Mapping[str, int]
    fell_out: Mapping[str, int]


def measure(name: str, project: Path) -> Net:
    """Build a project, look into its int8 file and time it against the fp32 one.

    `tflite_runtime` lives in an environment of its own; what is not there is not measured.
    """
    if _TFLITE_PYTHON.exists():
        os.environ.setdefault(TFLITE_RUNTIME_VARIABLE, str(_TFLITE_PYTHON))
    artifacts = build_project(project)
    integer, floating = (find_artifact(artifacts, precision) for precision in ("int8", "fp32"))
    files = model_file(integer), model_file(floating)
    delegations = [examine_delegation(file) for file in files]
    runs = [make_run(artifact, project) for artifact in (integer, floating)]
    return Net(
        name=name,
        content=content_of(*files),
        evidence=evidence_by_runtime(integer.manifest.evidence),
        speed=compare_speed(*runs),
        outside=delegations[0].outside,
        fell_out=fallen_out(*delegations),
    )


def find_artifact(artifacts: Sequence[Mapping[str, Any]], precision: str) -> Artifact:
    for artifact in artifacts:
        if artifact["precision"] == precision:
            return read_artifact(Path(artifact["path"]))
    message = f"edgeship build made no tflite-{precision}"
    raise CannotMeasure(message)


def model_file(artifact: Artifact) -> Path:
    names = [file.name for file in artifact.manifest.files if file.role is Role.MODEL]
    return artifact.directory / names[0]


def make_run(artifact: Artifact, project: Path) -> Callable[[], object]:
    """Runs the file on the first evaluation image, which was put into its form before."""
    inputs = first_inputs(artifact, project)
    session = load_runtime(RUNTIME).open(model_file(artifact), threads=1)
    return lambda: session.run(inputs)


def first_inputs(artifact: Artifact, project: Path) -> Mapping[str, np.ndarray]:
    read = read_project(project)
    assert read.evaluation is not None  # every project of the benchmark has it
    specs = read.model.input_specs()
    sample = open_samples(read.evaluation.data, specs, digest=file_sha256).load(0)
    return encode_inputs(sample.inputs, specs, artifact.manifest.contract)


def content_of(integer: Path, floating: Path) -> Content:
    """Counted over what operators read and write, and the file's inputs and outputs."""
    content = integer.read_bytes()
    model = read_model(content)
    names = [operator_name(model, operator) for _, operator in operators(model)]
    types = [
        type_name(subgraph.tensors[index])
        for subgraph in model.subgraphs
        for index in used_tensors(subgraph)
    ]
    return Content(
        bytes=len(content),
        float_bytes=floating.stat().st_size,
        float_tensors=sum("FLOAT" in name for name in types),
        transposes=names.count("TRANSPOSE"),
        conversions=sum(names.count(name) for name in ("QUANTIZE", "DEQUANTIZE", "CAST")),
    )


def used_tensors(subgraph: Any) -> set[int]:  # noqa: ANN401 - the vendor has no types
    lists = [subgraph.inputs, subgraph.outputs]
    lists += [part for item in subgraph.operators for part in (item.inputs, item.outputs)]
    return {int(index) for part in lists for index in part if index >= 0}
