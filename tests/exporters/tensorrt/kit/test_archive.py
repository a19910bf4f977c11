import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeship.exporters.tensorrt import kit
from edgeship.exporters.tensorrt.kit.archive import program_bytes

SOURCES = sorted(
    path for path in Path(kit.__file__).parent.glob("*.py") if path.name != "archive.py"
)
HERE = "edgeship.exporters.tensorrt.kit"


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 6))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_module_imports_its_own_package_and_the_library(path: Path) -> None:
    for name in imports_of(path):
        is_own = name == HERE or name.startswith(HERE + ".")
        assert is_own or name.split(".")[0] in sys.stdlib_module_names, name


def test_every_module_runs_on_python_3_6() -> None:
    start = "import sys, vermin; sys.exit(vermin.main())"
    command = [sys.executable, "-c", start, "-t=3.6-", "--no-tips", "--violations"]
    done = subprocess.run(
        [*command, *(str(path) for path in SOURCES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_sources_give_the_same_bytes_and_every_module() -> None:
    content = program_bytes()
    assert content == program_bytes()
    assert content.startswith(b"#!/usr/bin/env python3\n# ")
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        full = {name for name in opened.namelist() if opened.read(name)}
    folder = HERE.replace(".", "/")
    assert full == {"__main__.py", *(f"{folder}/{path.name}" for path in SOURCES)}


def test_help_and_wrong_options_need_nothing(tmp_path: Path) -> None:
    program = tmp_path / "build_engine.py"
    program.write_bytes(program_bytes())
    command = [sys.executable, "-I", "-S", str(program)]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--workspace MIB" in done.stdout
    done = subprocess.run([*command, "x", "--best"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == (
        '{"event": "end", "outcome": "usage", "message": "unrecognized arguments: --best"}\n'
    )
