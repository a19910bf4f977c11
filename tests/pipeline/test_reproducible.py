"""The same inputs give the same bytes, wherever and whenever they are built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def build(directory: Path, **environment: str) -> dict[str, bytes]:
    """Every file below build/; of the manifests everything but the evidence."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeship", "build", "--quiet"],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for path in sorted((directory / "build").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(content)
                del manifest["evidence"]
                content = json.dumps(manifest).encode()
            found[path.relative_to(directory).as_posix()] = content
    return found


def test_bytes_do_not_depend_on_directory_time_zone_or_hash_seed(
    project: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(project, tmp_path / "elsewhere" / "another name"))
    one = build(project, TZ="UTC", PYTHONHASHSEED="0")
    two = build(other, TZ="Pacific/Auckland", PYTHONHASHSEED="4242", LC_ALL="C", COLUMNS="40")
    assert one.keys() == two.keys()
    assert [name for name, content in one.items() if two[name] != content] == []
    assert len(one) > 20


def test_no_file_holds_a_path_of_the_machine(project: Path) -> None:
    for name, content in build(project).items():
        assert str(project).encode() not in content, name
        assert str(Path.home()).encode() + b"/" not in content, name
