from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.device_tests.transports.attempts import Attempts
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import (
    Connection,
    ConnectionFailed,
    DeadlinePassed,
    HostKeyRefused,
)
from edgeship.device_tests.transports.run_directory import RunPlace, run_directory
from edgeship.device_tests.transports.ssh import SshTransport
from edgeship.errors import Problem, RequirementMissing

faults = SimpleNamespace(**run_path(str(Path(__file__).with_name("faults.py"))))
USER: Final = "root" if os.getuid() == 0 else os.environ.get("USER", "nobody")
ATTEMPTS: Final = Attempts(times=4, pause_s=0.01, connect_s=1.5)
STEP_S: Final = 8.0
STEPS: Final = 5  # making the directory, upload, run, read, removal
GRACE_S: Final = 4.0  # a deadline and the end of what it ended: 2 s each for channel and connection
CONTENT: Final = random.Random(6).randbytes(200_000)
LINES: Final = [f"line {index} {'-' * 90}" for index in range(2000)]
# Leaves one child in its group and one that fled from it, as daemons do.
SCRIPT: Final = """\
sleep 613 & setsid sleep 614 >/dev/null 2>&1 </dev/null &
i=0
dashes=$(printf %090d 0 | tr 0 -)
while [ $i -lt 2000 ]; do echo "line $i $dashes"; i=$((i + 1)); done
cp "$1/model.bin" "$1/out.bin"
"""
FLEE: Final = """\
exec >/dev/null 2>&1 </dev/null
setsid sh -c 'touch $0; exec sleep 615' "$0" &
until [ -e "$0" ]; do :; done
"""
ABANDONED: Final = """
import os, sys
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.run_directory import run_directory
with run_directory(LocalTransport(), sys.argv[1]) as (connection, path):
    connection.run(["sh", "-c", sys.argv[2], f"{path}/fled"], deadline_s=20)
    print(path, flush=True)
    os.kill(os.getpid(), 9)
"""


@dataclass(frozen=True)
class Gone:
    """A board that answers a number of times and is then switched off."""

    answers: list[None]
    error: type[ConnectionFailed] = ConnectionFailed
    where: str = "the board"

    @contextmanager
    def connect(self, *, deadline_s: float = 30.0) -> Iterator[Connection]:
        if not self.answers:
            raise self.error(Problem(where=self.where, what="is off", remedy="switch it on"))
        self.answers.pop()
        with LocalTransport().connect(deadline_s=deadline_s) as connection:
            yield connection


def test_directory_is_private_and_gone_afterwards(base: Path) -> None:
    with run_directory(LocalTransport(), str(base)) as (connection, path):
        assert Path(path).parent == base
        assert Path(path).stat().st_mode & 0o777 == 0o700
        temporary = connection.run(["sh", "-c", "mktemp"], deadline_s=10).stdout.decode()
        assert temporary.startswith(path)
        connection.run(
            ["sh", "-c", 'mkdir "$0/a"; touch "$0/a/b"; chmod 0 "$0/a"', path], deadline_s=10
        )
    assert not list(base.iterdir())


def test_processes_that_fled_are_ended(base: Path) -> None:
    with run_directory(LocalTransport(), str(base)) as place:
        place.connection.run(["sh", "-c", FLEE, f"{place.path}/fled"], deadline_s=10)
        assert processes_of(Path(place.path))
    assert not processes_of(Path(place.path))


def test_error_of_the_body_is_passed_on_after_the_removal(base: Path) -> None:
    places = []

    def body() -> None:
        with run_directory(LocalTransport(), str(base)) as (_, path):
            places.append(Path(path).is_dir())
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert places == [True]
    assert not list(base.iterdir())


def test_abandoned_directories_are_swept_and_others_left_alone(base: Path) -> None:
    abandoned = subprocess.run(
        [sys.executable, "-c", ABANDONED, str(base), FLEE],
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(abandoned.stdout.strip())
    assert abandoned.returncode == -9
    assert left.is_dir()
    assert processes_of(left)
    foreign = base / "edgeship-run-notes"
    foreign.mkdir()
    nameless = base / "edgeship-run-00000000"
    nameless.mkdir()
    with (
        run_directory(LocalTransport(), str(base)) as (_, mine),
        run_directory(LocalTransport(), str(base)) as (_, other),
    ):
        assert not left.exists()
        assert not processes_of(left)
        assert Path(mine).is_dir()
        assert Path(other).is_dir()
    assert foreign.is_dir()
    boot, ends, owner = (nameless / ".lease").read_text(encoding="ascii").split()
    assert (boot != "-", int(ends) > 3600, owner) == (True, True, "-")
    (nameless / ".lease").write_text(f"{boot} 1 -\n", encoding="ascii")
    with run_directory(LocalTransport(), str(base)):
        assert not nameless.exists()


def test_missing_base_is_a_refusal(tmp_path: Path) -> None:
    with (
        pytest.raises(RequirementMissing, match="refuses to make") as refusal,
        run_directory(LocalTransport(), str(tmp_path / "absent")),
    ):
        pass
    assert not isinstance(refusal.value, ConnectionFailed)


def test_board_that_was_never_there_leaves_nothing_to_remove() -> None:
    tries: list[float] = []
    attempts = Attempts(times=3, sleep=tries.append)
    with (
        pytest.raises(ConnectionFailed) as failure,
        run_directory(Gone([]), "/nowhere", attempts=attempts),
    ):
        pass
    assert len(tries) == 2
    assert len(failure.value.problems) == 1
    with (
        pytest.raises(HostKeyRefused),
        run_directory(Gone([], HostKeyRefused), "/nowhere", attempts=attempts),
    ):
        pass
    assert len(tries) == 2


def test_what_stays_on_a_lost_board_is_said(base: Path) -> None:
    board = Gone([None])
    with (
        pytest.raises(DeadlinePassed) as failure,
        run_directory(board, str(base), attempts=ATTEMPTS) as (connection, path),
    ):
        connection.run(["sleep", "617"], deadline_s=0.2)
    assert [it.what for it in failure.value.problems] == [
        "sleep did not end in time",
        f"{path} may stay on the board, and what runs out of it",
    ]
    assert Path(path).is_dir()


@pytest.mark.parametrize("seed", range(3))
def test_faults_leave_nothing_behind(
    seed: int, python_ssh_port: int, ssh_keys: SimpleNamespace, base: Path
) -> None:
    strike(random.Random(seed), python_ssh_port, ssh_keys, base)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_faults_leave_nothing_behind(
    sshd_port: int, ssh_keys: SimpleNamespace, base: Path
) -> None:
    def lane(number: int) -> list[ConnectionFailed | None]:
        source = random.Random(100 + number)
        place = base / f"lane-{number}"
        place.mkdir()
        return [strike(source, sshd_port, ssh_keys, place) for _ in range(25)]

    with ThreadPoolExecutor(4) as lanes:
        results = [result for lane_results in lanes.map(lane, range(4)) for result in lane_results]
    # Of both there must be some, or the faults came too early or too late to tell anything.
    assert 10 < sum(result is None for result in results) < 90


def strike(
    source: random.Random, port: int, keys: SimpleNamespace, base: Path
) -> ConnectionFailed | None:
    """One run over a connection that breaks up to three times; whole, or an error, and clean."""
    planned = [
        faults.random_fault(source, up_bytes=220_000, down_bytes=430_000)
        for _ in range(source.choice((1, 1, 2, 3)))
    ]
    start_s = time.monotonic()
    result: ConnectionFailed | None = None
    with faults.FaultyProxy(port, planned) as proxy:
        transport = SshTransport(
            host="127.0.0.1",
            user=USER,
            port=proxy.port,
            key=keys.client,
            known_hosts=keys.known_hosts(proxy.port),
            is_agent_allowed=False,
            keepalive_s=0.3,
            keepalive_times=2,
        )
        try:
            with run_directory(
                transport, str(base), setup_s=STEP_S, removal_s=STEP_S, attempts=ATTEMPTS
            ) as place:
                assert whole_run(place) == (LINES, CONTENT)
        except ConnectionFailed as error:
            result = error
        told = f"{planned}, of which {proxy.struck}, {result}"
        assert time.monotonic() - start_s < STEPS * STEP_S + GRACE_S, told
        assert not list(base.iterdir()), told
        assert not processes_of(base), told
    return result


def whole_run(place: RunPlace) -> tuple[list[str], bytes]:
    connection, path = place
    lines: list[str] = []
    connection.put({"model.bin": CONTENT, "run.sh": SCRIPT.encode()}, path, deadline_s=STEP_S)
    ended = connection.run(["sh", f"{path}/run.sh", path], deadline_s=STEP_S, on_line=lines.append)
    assert ended.is_ok
    return lines, connection.read(f"{path}/out.bin", deadline_s=STEP_S)


def processes_of(place: Path) -> list[int]:
    """Processes of this machine that runs in or below a directory started, by the kernel."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes()
        except OSError:
            continue
        if b"EDGESHIP_RUN=" in variables and f"TMPDIR={place}".encode() in variables:
            found.append(int(path.parent.name))
    return found
