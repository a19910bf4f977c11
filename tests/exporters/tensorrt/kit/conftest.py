import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def kits() -> SimpleNamespace:
    """The module beside this one, which writes kits and machines."""
    return SimpleNamespace(**run_path(str(HERE / "kits.py")))


@pytest.fixture(scope="session")
def fake_tensorrt() -> SimpleNamespace:
    """The module beside this one, which makes a `tensorrt` of a dump."""
    return SimpleNamespace(**run_path(str(HERE / "fake_tensorrt.py")))


@dataclass(frozen=True, kw_only=True)
class Done:
    """How build_engine.py ended."""

    status: int
    events: list[dict[str, Any]]
    story: str = field(repr=False)

    @property
    def end(self) -> dict[str, Any]:
        assert self.events[-1]["event"] == "end", self.events
        return self.events[-1]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Done]:
    """Runs the program of a kit on a machine; engines go to `tmp_path / "cache"`."""

    def run(kit: Path, machine: Path, *options: str, **environment: str) -> Done:
        path = f"{machine / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            [
                sys.executable,
                str(kit / "build_engine.py"),
                str(kit),
                f"--cache={tmp_path / 'cache'}",
                f"--root={machine}",
                "--duration=1",
                *options,
            ],
            env=os.environ | {"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return Done(status=done.returncode, events=events, story=done.stderr)

    return run
