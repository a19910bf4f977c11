from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import ConnectionFailed, DeadlinePassed
from edgeship.errors import RequirementMissing

OWNER: Final = """
import sys
from edgeship.device_tests.transports.local import LocalTransport
with LocalTransport().connect() as connection:
    connection.run(["sh", "-c", "echo $$; sleep 600"], deadline_s=600,
                   on_line=lambda line: print(line, flush=True))
"""


def test_status_signal_and_streams_are_told_apart() -> None:
    with LocalTransport().connect() as connection:
        ended = connection.run(["sh", "-c", "echo out; echo err >&2; exit 139"], deadline_s=10)
        assert (ended.status, ended.signal) == (139, None)
        assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")
        killed = connection.run(["sh", "-c", "kill -SEGV $$"], deadline_s=10)
        assert (killed.status, killed.signal) == (None, "SEGV")
        assert connection.run(["no-such-program"], deadline_s=10).status == 127


def test_only_the_last_mebibyte_of_output_is_kept() -> None:
    script = "import sys; sys.stdout.write('a' * 3_000_000 + 'end')"
    with LocalTransport().connect() as connection:
        ended = connection.run([sys.executable, "-c", script], deadline_s=30)
    assert len(ended.stdout) == 1 << 20
    assert ended.stdout.endswith(b"aend")


def test_deadline_ends_the_whole_group_and_says_its_last_words(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = 'echo stuck here >&2; sleep 600 & echo $! > "$0"; trap "" TERM; wait'
    with (
        LocalTransport().connect() as connection,
        pytest.raises(DeadlinePassed, match="'stuck here'"),
    ):
        connection.run(["sh", "-c", script, str(pid_file)], deadline_s=0.5)
    assert_ends(int(pid_file.read_text()))


def test_what_a_command_leaves_behind_does_not_hold_us(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with LocalTransport().connect() as connection:
        ended = connection.run(
            ["sh", "-c", 'sleep 600 & echo $! > "$0"; exit 4', str(pid_file)], deadline_s=20
        )
    assert ended.status == 4
    assert_ends(int(pid_file.read_text()))


def test_command_ends_when_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    assert_ends(pid)


def test_files_are_copied_with_folders_and_modes(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho runs\n", encoding="ascii")
    tool.chmod(0o700)
    base = tmp_path / "base"
    base.mkdir()
    with LocalTransport().connect() as connection:
        connection.put({"a/b/tool": tool, "x": b"\0\1"}, str(base), deadline_s=10)
        assert connection.run([str(base / "a/b/tool")], deadline_s=10).stdout == b"runs\n"
        assert connection.read(str(base / "x"), deadline_s=10) == b"\0\1"
        with pytest.raises(FileNotFoundError):
            connection.read(str(base / "y"), deadline_s=10)
        with pytest.raises(RequirementMissing) as refusal:
            connection.put({"file": b"x"}, str(base / "nothing"), deadline_s=10)
    assert not isinstance(refusal.value, ConnectionFailed)


def assert_ends(pid: int) -> None:
    """Its end was asked for; the kernel does it soon, or never."""
    end_s = time.monotonic() + 10
    while (state := state_of(pid)) not in ("", "Z"):
        assert time.monotonic() < end_s, f"process {pid} lives on in state {state}"
        os.sched_yield()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
