"""Shells to install with, and releases to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
made = SimpleNamespace(**run_path(str(HERE / "made.py")))
Install = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["dash", "busybox"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """A shell that boards have, as the start of a command."""
    program = shutil.which(request.param) or shutil.which(
        request.param, path=f"{os.environ.get('EDGESHIP_LAB_TOOLS', '')}/bin"
    )
    if program is None:
        pytest.skip(f"NOT TESTED with {request.param}: it is not on this machine")
    return [program, "sh"] if request.param == "busybox" else [program]


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four releases of one product, unpacked."""
    return unpacked_releases(tmp_path_factory.mktemp("releases"), is_kit=False)


@pytest.fixture(scope="session")
def kit_releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same of TensorRT kits."""
    return unpacked_releases(tmp_path_factory.mktemp("releases"), is_kit=True)


def unpacked_releases(directory: Path, *, is_kit: bool) -> list[Path]:
    unpacked = []
    for number in range(4):
        kind = {"is_kit": True, "precision": "kit"} if is_kit else {}
        artifact = made.make_artifact(directory / f"artifact{number}", f"ok {number}", **kind)
        bundled = made.make_bundle(directory, artifact)
        with tarfile.open(bundled.path) as archive:
            archive.extractall(directory, filter="data")
        unpacked.append(directory / bundled.path.stem)
    return unpacked


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program in Python's place that finds nothing missing and reads the outcome at once."""
    file = tmp_path_factory.mktemp("quick") / "python"
    file.write_text(made.QUICK_PYTHON)
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def install(shell: list[str], tmp_path: Path, quick_python: str) -> Install:
    """Runs the install.sh of an unpacked release, with a prefix of the test's."""

    def run(
        release: Path, *arguments: str, python: str = quick_python
    ) -> subprocess.CompletedProcess[str]:
        command = [*shell, str(release / "install.sh"), *arguments]
        command += ["--prefix", str(tmp_path / "prefix"), "--python", python]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )

    return run
