import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeship.device_tests import board
from edgeship.device_tests.board_archive import archive_bytes

SOURCES = sorted(Path(board.__file__).parent.glob("*.py"))
HERE = "edgeship.device_tests.board"


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 6))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_module_imports_its_own_package_the_library_and_numpy(path: Path) -> None:
    for name in imports_of(path):
        is_own = name == HERE or name.startswith(HERE + ".")
        assert is_own or name.split(".")[0] in {*sys.stdlib_module_names, "numpy"}, name


def test_every_module_runs_on_python_3_6() -> None:
    start = "import sys, vermin; sys.exit(vermin.main())"
    command = [sys.executable, "-c", start, "-t=3.6-", "--no-tips", "--violations"]
    done = subprocess.run(
        [*command, *(str(path) for path in SOURCES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_sources_give_the_same_bytes() -> None:
    assert archive_bytes() == archive_bytes()


def test_it_holds_every_module_under_its_own_name_and_no_other() -> None:
    content = archive_bytes()
    assert content.startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        empty = [name for name in names if not opened.read(name)]
    folder = HERE.replace(".", "/")
    around = ["edgeship/__init__.py", "edgeship/device_tests/__init__.py"]
    assert sorted(names) == sorted(
        ["__main__.py", *around, *(f"{folder}/{path.name}" for path in SOURCES)]
    )
    assert sorted(empty) == around


def test_a_wrong_option_is_said_as_the_last_event(archive: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(archive), "smoke", "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == (
        '{"event": "end", "outcome": "failed", "message": "usage: the following arguments are '
        'required: --runtime"}\n'
    )
