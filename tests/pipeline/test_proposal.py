from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeship.cli import main
from edgeship.pipeline.proposal import text_of_limit
from edgeship.project_file import read_project
from edgeship.quantities import bytes_from_text

ARGUMENTS = [
    *("model.py:build", "--weights", "bright.safetensors", "--shape", "1,3,8,8"),
    *("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--labels", "labels.txt"),
    *("--calibration", "calib", "--evaluation", "test", "--target", "raspberry-pi-4"),
]


def init(directory: Path, *more: str) -> int:
    file = str(directory / "edgeship.toml")
    return main(["init", *ARGUMENTS, *more, "--quiet", "--project", file])


@given(st.integers(min_value=1, max_value=10**12))
def test_a_limit_is_at_least_its_bytes_and_at_most_a_tenth_more(count: int) -> None:
    limit = bytes_from_text(text_of_limit(count))
    assert count <= limit <= max(count * 1.1, count + 1)


@pytest.mark.parametrize(
    ("count", "text"), [(392_100, "400 kB"), (1000, "1 kB"), (1_250_000, "1.3 MB"), (7, "7 B")]
)
def test_limits_are_round(count: int, text: str) -> None:
    assert text_of_limit(count) == text


@pytest.mark.slow
def test_init_writes_a_project_that_passes_its_own_budget(project: Path) -> None:
    (project / "edgeship.toml").unlink()
    assert init(project) == 0
    budget = read_project(project / "edgeship.toml").targets["raspberry-pi-4"].budget
    size = (project / "build/raspberry-pi-4/onnx-int8/model.onnx").stat().st_size
    assert budget.size_bytes is not None
    assert 1.2 * size < budget.size_bytes < 1.4 * size
    assert main(["check", "--project", str(project / "edgeship.toml")]) == 0


def test_init_never_replaces_a_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "edgeship.toml").read_text()
    assert init(project) == 2
    assert (project / "edgeship.toml").read_text() == before
    assert "there is a project already" in capsys.readouterr().err


def test_init_with_wrong_answers_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "edgeship.toml").unlink()
    before = sorted(project.rglob("*"))
    assert init(project, "--target", "raspbery-pi-5") == 2
    assert sorted(project.rglob("*")) == before
    assert "did you mean 'raspberry-pi-5'?" in capsys.readouterr().err
