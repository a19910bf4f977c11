"""A build that is killed leaves the last good artifact, and the next one completes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from edgeship.artifact import read_artifact

pytestmark = pytest.mark.slow

STAGES: Final = ("lower", "observe", "audit", "emit", "golden", "reference", "evaluate")
INT8: Final = "build/raspberry-pi-4/onnx-int8"


def start_build(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeship", "build", "--json"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_at(directory: Path, beginning: str) -> None:
    """Run a build and SIGKILL it when a line of its story begins so."""
    with start_build(directory) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(beginning):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL, f"no line begins with {beginning!r}"


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def change_inputs(directory: Path) -> None:
    """Another preprocessing: every stage must work again."""
    file = directory / "edgeship.toml"
    text = file.read_text()
    file.write_text(text.replace("std = [0.25, 0.25, 0.25]", "std = [0.26, 0.26, 0.26]"))


def assert_completes(directory: Path) -> None:
    with start_build(directory) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    for item in json.loads(out)["artifacts"]:
        assert not read_artifact(Path(item["path"])).damaged_files()
        assert item["evidence"][0]["rung"] == "matches"
    left = [path for path in directory.rglob(".new-*")] + [*directory.rglob(".old-*")]
    assert not left


@pytest.mark.parametrize("stage", [*STAGES, "sealed"])
def test_sigkill_in_a_stage_leaves_the_last_good_artifact(built: Path, stage: str) -> None:
    before = snapshot(built / INT8)
    change_inputs(built)
    kill_at(built, stage)
    after = snapshot(built / INT8)
    if stage in STAGES[:5]:
        assert after == before
    assert not read_artifact(built / INT8).damaged_files()
    assert_completes(built)


@pytest.mark.parametrize("stage", STAGES[:5])
def test_sigkill_in_a_first_build_leaves_no_artifact(project: Path, stage: str) -> None:
    kill_at(project, stage)
    assert not (project / INT8).exists()
    assert_completes(project)


def test_two_builds_at_once_wait_for_one_another(project: Path) -> None:
    with start_build(project) as one, start_build(project) as other:
        outputs = [process.communicate() for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], outputs
    results = [json.loads(out) for out, _ in outputs]
    assert min(result["stages_run"] for result in results) == 0
    assert "waiting for another edgeship" in "".join(err for _, err in outputs)
    assert results[0]["artifacts"] == results[1]["artifacts"]
