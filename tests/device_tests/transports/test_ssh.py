from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from edgeship.device_tests.transports.attempts import LoginRefused
from edgeship.device_tests.transports.protocol import (
    ConnectionFailed,
    DeadlinePassed,
    HostKeyRefused,
)
from edgeship.device_tests.transports.ssh import SshTransport
from edgeship.device_tests.transports.ssh_connection import SshConnection
from edgeship.errors import ConfigurationError, RequirementMissing

if TYPE_CHECKING:
    from types import SimpleNamespace

USER: Final = "root" if os.getuid() == 0 else os.environ.get("USER", "nobody")
BOTH: Final = [
    pytest.param("python_ssh_port", id="asyncssh"),
    pytest.param("sshd_port", id="sshd", marks=pytest.mark.slow),
]


@pytest.fixture(params=BOTH)
def transport(request: pytest.FixtureRequest, ssh_keys: SimpleNamespace) -> SshTransport:
    port: int = request.getfixturevalue(request.param)
    return SshTransport(
        host="127.0.0.1",
        user=USER,
        port=port,
        key=ssh_keys.client,
        known_hosts=ssh_keys.known_hosts(port),
        is_agent_allowed=False,
    )


@pytest.fixture
def connection(transport: SshTransport) -> Iterator[SshConnection]:
    with transport.connect(deadline_s=10) as opened:
        yield opened


def test_arguments_arrive_as_they_were_given(connection: SshConnection) -> None:
    awkward = ["a b", "$HOME", "'", '"', "*", "", "ü\n;x", "--", "\\"]
    ended = connection.run(["printf", "%s|", *awkward], deadline_s=10)
    assert ended.is_ok
    assert ended.stdout.decode() == "".join(f"{it}|" for it in awkward)


def test_status_signal_and_streams_are_told_apart(connection: SshConnection) -> None:
    ended = connection.run(["sh", "-c", "echo out; echo err >&2; exit 139"], deadline_s=10)
    assert (ended.status, ended.signal) == (139, None)
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")
    killed = connection.run(["sh", "-c", "kill -ILL $$"], deadline_s=10)
    assert (killed.status, killed.signal) == (None, "ILL")


def test_unknown_program_ends_with_127(connection: SshConnection) -> None:
    assert connection.run(["no-such-program"], deadline_s=10).status == 127


def test_lines_come_while_the_command_runs(connection: SshConnection, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    script = f"echo first; until [ -e {shlex.quote(str(flag))} ]; do :; done; printf last"
    lines = []

    def take(line: str) -> None:
        lines.append(line)
        flag.touch()

    ended = connection.run(["sh", "-c", script], deadline_s=10, on_line=take)
    assert lines == ["first", "last"]
    assert ended.stdout == b""


def test_environment_is_set_without_the_server_accepting_it(connection: SshConnection) -> None:
    ended = connection.run(
        ["sh", "-c", 'printf %s "$WORD"'], deadline_s=10, environment={"WORD": "a 'b' $c"}
    )
    assert ended.stdout == b"a 'b' $c"


def test_stdin_is_open_and_empty_until_the_end(connection: SshConnection, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {shlex.quote(str(pid_file))}; cat; echo stdin ended"
    with pytest.raises(DeadlinePassed, match="sh did not end in time"):
        connection.run(["sh", "-c", script], deadline_s=0.5)
    assert_ends(int(pid_file.read_text()))


def test_deadline_ends_the_command_and_its_children(
    connection: SshConnection, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {shlex.quote(str(pid_file))}; trap '' TERM HUP; wait"
    start_s = time.monotonic()
    with pytest.raises(DeadlinePassed):
        connection.run(["sh", "-c", script], deadline_s=0.5)
    assert time.monotonic() - start_s < 0.5 + 4
    assert_ends(int(pid_file.read_text()))


def test_error_of_the_listener_ends_the_command(connection: SshConnection, tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    pid_file = tmp_path / "pid"
    script = f"echo $$ > {shlex.quote(str(pid_file))}; echo no; sleep 600"
    with pytest.raises(ValueError, match="no"):
        connection.run(["sh", "-c", script], deadline_s=30, on_line=refuse)
    assert_ends(int(pid_file.read_text()))


def test_files_arrive_whole_with_their_folders_and_modes(
    connection: SshConnection, base: Path, tmp_path: Path
) -> None:
    content = os.urandom(3_000_001)
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho runs\n", encoding="ascii")
    tool.chmod(0o700)
    (base / "model.bin").write_bytes(b"older and longer than nothing")
    many = {f"golden/{index}.bin": bytes([index]) * index for index in range(20)}
    files: dict[str, Path | bytes] = {"model.bin": content, "a/b/tool": tool, **many}
    connection.put(files, str(base), deadline_s=30)
    assert (base / "model.bin").read_bytes() == content
    assert connection.run([str(base / "a/b/tool")], deadline_s=10).stdout == b"runs\n"
    assert all((base / name).read_bytes() == value for name, value in many.items())
    assert connection.read(str(base / "model.bin"), deadline_s=30) == content
    assert not list(base.rglob("*.part"))


def test_refusals_are_no_connection_failures(connection: SshConnection, base: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connection.read(str(base / "nothing"), deadline_s=10)
    with pytest.raises(RequirementMissing) as refusal:
        connection.put({"file": b"x"}, str(base / "nothing"), deadline_s=10)
    assert not isinstance(refusal.value, ConnectionFailed)
    with pytest.raises(ValueError, match="not a path below"):
        connection.put({"../file": b"x"}, str(base), deadline_s=10)
    assert connection.run(["true"], deadline_s=10).is_ok


def test_unknown_host_key_is_refused_with_the_line_to_add(
    transport: SshTransport, ssh_keys: SimpleNamespace, tmp_path: Path
) -> None:
    empty = replace(transport, known_hosts=tmp_path / "absent")
    with pytest.raises(HostKeyRefused, match="not known") as refusal, empty.connect():
        pass
    kind, key = ssh_keys.host_public.split()[:2]
    assert f"add `[127.0.0.1]:{transport.port} {kind} {key}`" in str(refusal.value)
    assert "SHA256:" in str(refusal.value)


def test_changed_host_key_is_refused(
    transport: SshTransport, ssh_keys: SimpleNamespace, tmp_path: Path
) -> None:
    other = tmp_path / "known_hosts"
    key = (ssh_keys.directory / "client.pub").read_text(encoding="ascii")
    other.write_text(f"[127.0.0.1]:{transport.port} {key}", encoding="ascii")
    changed = replace(transport, known_hosts=other)
    with pytest.raises(HostKeyRefused, match="has changed"), changed.connect():
        pass
    other.write_text(f"@revoked * {ssh_keys.host_public}\n", encoding="ascii")
    with pytest.raises(HostKeyRefused, match="revoked"), changed.connect():
        pass


def test_foreign_key_is_refused_once_and_for_all(
    transport: SshTransport, ssh_keys: SimpleNamespace, tmp_path: Path
) -> None:
    stranger = replace(transport, key=ssh_keys.directory / "host")
    with pytest.raises(LoginRefused, match="ssh-copy-id"), stranger.connect():
        pass
    absent = replace(transport, key=tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="no such file"), absent.connect():
        pass


def test_nobody_there_is_a_connection_failure(transport: SshTransport, unused_port: int) -> None:
    nobody = replace(transport, port=unused_port)
    with pytest.raises(ConnectionFailed, match="cannot be reached"), nobody.connect(deadline_s=5):
        pass


def test_a_server_that_says_nothing_ends_at_the_deadline(
    transport: SshTransport, silent_port: int
) -> None:
    silent = replace(transport, port=silent_port)
    with pytest.raises(DeadlinePassed), silent.connect(deadline_s=0.3):
        pass


def assert_ends(pid: int) -> None:
    """Its end was asked for; the kernel does it soon, or never."""
    end_s = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid):
        assert time.monotonic() < end_s, f"process {pid} lives on"
        os.sched_yield()


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
