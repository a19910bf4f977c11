from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeship.artifact import read_artifact
from edgeship.errors import ExitCode
from edgeship.pipeline.advice import advise
from edgeship.pipeline.build import build
from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project
from edgeship.story import Silence
from edgeship.vocabulary import Metric


@pytest.fixture
def misled(built: Path, unfit_calibration: str) -> Path:
    """A project whose ranges are solved from dim images: int8 clips all that is bright."""
    file = built / "edgeship.toml"
    file.write_text(file.read_text().replace('data = "calib"', f'data = "{unfit_calibration}"'))
    return file


def test_an_int8_that_lost_too_much_names_what_passes_on_the_same_data(misled: Path) -> None:
    plan = make_plan(read_project(misled))
    result = build(plan, Silence())
    int8, fp32 = result.outcomes
    assert ExitCode.ACCURACY in int8.exit_codes
    assert int8.artifact is not None  # kept, to be explained
    assert int8.advice is not None
    assert int8.advice.startswith('precision "dynamic" (activations in float')
    assert "passes: top1 lost" in int8.advice
    assert "(40 samples, host, onnxruntime" in int8.advice
    assert fp32.advice is None
    names = {path.name for path in (misled.parent / "build/raspberry-pi-4").iterdir()}
    assert "onnx-dynamic" not in names  # measured, and not put among what was asked for
    again = build(plan, Silence())
    assert again.stages_run == 0
    assert again.outcomes[0].advice == int8.advice


def test_what_does_not_pass_either_is_not_recommended(built: Path) -> None:
    project = read_project(built / "edgeship.toml")
    item, _ = make_plan(project).artifacts
    directory = built / "build/raspberry-pi-4/onnx-int8"
    evidence = read_artifact(directory).manifest.evidence[0]
    worse = replace(evidence, metrics={**evidence.metrics, Metric.TOP1: 0.5})
    line = advise(project, item, [evidence, worse])
    assert line is not None
    assert "does not pass either: top1 lost 50.00 pt" in line
    assert "to take it" not in line
