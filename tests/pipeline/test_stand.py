from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeship.artifact import Artifact, read_artifact
from edgeship.errors import IntegrityRefused, RequirementMissing
from edgeship.evidence import Evidence
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.stand import keep_evidence, read_built
from edgeship.pipeline.ways import Ways, open_ways
from edgeship.story import Silence
from edgeship.vocabulary import Place, Rung

boards = SimpleNamespace(**run_path(str(Path(__file__).with_name("boards.py"))))
FIRST = Evidence(
    rung=Rung.MATCHES,
    place=Place.DEVICE,
    stand_in=False,
    where={"runtime": "onnxruntime", "version": "1.31.1", "device": "kitchen"},
    metrics={},
    samples=4,
    ci95=None,
    data_sha256="0" * 64,
    command="edgeship test",
    at="2026-11-22T10:00:00Z",
)


@pytest.fixture
def plan(project: Path) -> Plan:
    found: Plan = boards.write_project(project, "here")
    return found


@pytest.fixture
def ways(plan: Plan) -> Iterator[Ways]:
    with open_ways(plan, Silence()) as found:
        yield found


@pytest.fixture
def artifact(plan: Plan, project: Path) -> Artifact:
    return read_artifact(project / "build" / plan.artifacts[0].name)


def test_a_newer_word_takes_the_place_of_the_older(artifact: Artifact) -> None:
    other = replace(FIRST, command="edgeship build", place=Place.HOST)
    newer = replace(
        FIRST,
        rung=Rung.RUNS,
        at="2026-11-23T10:00:00Z",
        where={**FIRST.where, "version": "1.32.0"},
    )
    kept = keep_evidence(keep_evidence(keep_evidence(artifact, FIRST), other), newer)
    assert kept.manifest.evidence == (other, newer)
    assert read_artifact(artifact.directory).manifest.evidence == (other, newer)
    assert kept.manifest.artifact_id == artifact.manifest.artifact_id


@pytest.mark.parametrize(
    "other",
    [
        replace(FIRST, command="edgeship bench"),
        replace(FIRST, place=Place.EMULATED),
        replace(FIRST, where={**FIRST.where, "runtime": "ai-edge-litert"}),
        replace(FIRST, where={**FIRST.where, "device": "shed"}),
        replace(FIRST, where={"runtime": "onnxruntime"}),
    ],
)
def test_another_source_leaves_it(artifact: Artifact, other: Evidence) -> None:
    kept = keep_evidence(keep_evidence(artifact, FIRST), other)
    assert kept.manifest.evidence == (FIRST, other)


def test_what_was_built_is_read_and_the_rest_told(plan: Plan, ways: Ways, project: Path) -> None:
    int8, fp16, fp32 = plan.artifacts
    (project / "build" / int8.name / "manifest.json").unlink()
    model = project / "build" / fp16.name / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    (built,), absent = read_built(plan.artifacts, ways)
    assert built.item is fp32
    assert built.model_file == project / "build" / fp32.name / "model.onnx"
    assert [(item, type(error)) for item, error in absent] == [
        (int8, RequirementMissing),
        (fp16, IntegrityRefused),
    ]


def test_what_was_built_of_another_checkpoint_is_refused(
    plan: Plan, ways: Ways, project: Path
) -> None:
    weights = project / "bright.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    found, absent = read_built(plan.artifacts, ways)
    assert found == []
    assert all("the checkpoint changed" in str(error) for _, error in absent)
    assert len(absent) == 3
