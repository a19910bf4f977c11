from __future__ import annotations

import io
import platform
import sys
import zipfile
from pathlib import Path

import pytest

from edgeship.device_tests.probe.probe import ARCHIVE_NAME, probe
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.errors import RequirementMissing

DESCRIBE = """\
import json, os, platform, sys
assert sys.argv[1] == "describe"
version = platform.python_version()
print(json.dumps({"event": "python", "version": version, "numpy": os.environ["NUMPY"]}))
print(json.dumps({"event": "runtime", "name": "llama.cpp", "version": None, "kind": "program",
                  "path": sys.argv[sys.argv.index("--program") + 1]}))
print(json.dumps({"event": "end", "outcome": "ok"}))
"""


def archive(main: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("__main__.py", main)
    return content.getvalue()


def test_script_and_python_together(tmp_path: Path) -> None:
    with LocalTransport().connect() as connection:
        found = probe(
            connection,
            directory=str(tmp_path),
            archive=archive(DESCRIBE),
            python=sys.executable,
            environment={"NUMPY": "1.26.4"},
            program="/opt/llama-server",
        )
    assert (found.python, found.numpy) == (platform.python_version(), "1.26.4")
    assert found.runtimes[0].path == "/opt/llama-server"
    assert found.arch == platform.machine()
    assert found.disk_free_bytes
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE_NAME]


def test_a_board_without_python_gets_the_rest_and_a_note(tmp_path: Path) -> None:
    with LocalTransport().connect() as connection:
        found = probe(
            connection, directory=str(tmp_path), archive=archive(DESCRIBE), python="/no/python3"
        )
    assert (found.python, found.runtimes) == (None, ())
    assert found.kernel == platform.release()
    assert "runtimes were not looked for: /no/python3 ended with 127" in found.notes[-1]


def test_a_python_that_fails_says_why(tmp_path: Path) -> None:
    with LocalTransport().connect() as connection:
        found = probe(
            connection,
            directory=str(tmp_path),
            archive=archive("raise SystemExit('no Python 2')"),
            python=sys.executable,
        )
    assert found.notes[-1].endswith("ended with 1: no Python 2")


def test_without_an_archive_nothing_is_copied(tmp_path: Path) -> None:
    with LocalTransport().connect() as connection:
        found = probe(connection, directory=str(tmp_path), archive=None)
    assert found.python is None
    assert list(tmp_path.iterdir()) == []


def test_a_shell_that_does_not_run_the_script_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sh").write_text("#!/bin/sh\necho 'no shell for you' >&2\nexit 3\n")
    (tmp_path / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with LocalTransport().connect() as connection, pytest.raises(RequirementMissing) as caught:
        probe(connection, directory=str(tmp_path), archive=None)
    assert "ended with 3: no shell for you" in str(caught.value)
