"""The command starts fast and needs nothing but Python for its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.checkout

SOURCE: Final = Path(__file__).parents[1] / "src"
LIMIT_S: Final = 0.2
"""DESIGN: `edgeship --help` takes < 200 ms."""


def run_bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without site-packages: only the standard library and our sources."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_works_on_a_bare_interpreter_and_is_fast() -> None:
    """In CPU seconds, the least of five, so that a busy machine does not fail it."""
    seconds = []
    for _ in range(5):
        before = os.times()
        done = run_bare("-m", "edgeship", "--help")
        after = os.times()
        assert done.returncode == 0, done.stderr
        assert "exit codes" in done.stdout
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(seconds) < LIMIT_S, seconds


def test_import_loads_no_package_of_others() -> None:
    script = "import edgeship, edgeship.cli, sys; print(*sys.modules)"
    done = run_bare("-c", script)
    assert done.returncode == 0, done.stderr
    foreign = {name.partition(".")[0] for name in done.stdout.split()}
    assert not foreign & {"numpy", "torch", "onnx", "onnxruntime", "rich", "PIL"}


@pytest.mark.parametrize("command", ["build", "plan", "check"])
def test_usage_errors_exit_2_without_a_traceback(command: str) -> None:
    done = run_bare("-m", "edgeship", command, "--no-such-option")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
