import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeship.artifact import Artifact


def self_tested(archive: Path, artifact: Artifact, *flags: str) -> tuple[int, str]:
    """Exit status, and the line for people; without a stdin, as in an installer."""
    done = subprocess.run(
        [sys.executable, *flags, str(archive), "self-test", str(artifact.directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_self_test_that_matches_exits_0(archive: Path, artifact: Artifact) -> None:
    status, line = self_tested(archive, artifact)
    assert status == 0
    assert line.startswith("self-test: the golden pack matches in onnxruntime 1.")


@pytest.mark.slow
def test_a_self_test_that_does_not_match_exits_6(
    archive: Path, packs: SimpleNamespace, tmp_path: Path
) -> None:
    def other(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"logits": packs.linear(inputs)["logits"] + 1}

    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec(), answer=other, count=1)
    status, line = self_tested(archive, artifact)
    assert status == 6
    assert line.startswith("self-test: mismatch: 2 of 3 comparisons fail")


@pytest.mark.slow
def test_a_self_test_tries_the_next_runtime(
    archive: Path, packs: SimpleNamespace, tmp_path: Path
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec(), count=1)
    runtimes = (("onnxruntime", "99"), ("onnxruntime", "1.10"))
    artifact = packs.seal(artifact.directory, artifact.manifest.contract, runtimes=runtimes)
    assert self_tested(archive, artifact)[0] == 0


@pytest.mark.slow
def test_a_self_test_without_a_runtime_exits_8(
    archive: Path, packs: SimpleNamespace, tmp_path: Path
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec(), count=1)
    runtimes = (("onnxruntime", "99"),)
    artifact = packs.seal(artifact.directory, artifact.manifest.contract, runtimes=runtimes)
    status, line = self_tested(archive, artifact)
    assert status == 8
    assert "is older than 99" in line
