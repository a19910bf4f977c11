from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from edgeship.artifact import Artifact
from edgeship.device_tests.bench.plan import COUNTING, PLANS
from edgeship.device_tests.bench.run import BenchRun, bench, work
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    ConnectionFailed,
    DeadlinePassed,
    Ended,
)
from edgeship.errors import RequirementMissing
from edgeship.vocabulary import Place

packs = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "board/packs.py")))
SHORT = replace(PLANS["tiny"], windows=1, min_queries=80, min_duration_s=0.0, warm_up_limit_s=0.0)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    found: Artifact = packs.image_artifact(tmp_path_factory.mktemp("a") / "a", packs.image_spec())
    return found


@pytest.fixture
def connection() -> Iterator[Connection]:
    with LocalTransport().connect() as connection:
        yield connection


class Recorder:
    """A connection that keeps what a board said and wrote, and says it again."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._lines: list[str] = []
        self._ended: Ended | None = None
        self.content = b""

    def stop(self) -> None:
        self._connection = None

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        if self._connection is not None:
            self._ended = self._connection.run(
                command,
                deadline_s=deadline_s,
                environment=environment,
                on_line=self._lines.append,
            )
        assert on_line is not None
        assert self._ended is not None
        for line in self._lines:
            on_line(line)
        return self._ended

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        if self._connection is not None:
            self._connection.put(files, directory, deadline_s=deadline_s)

    def read(self, path: str, *, deadline_s: float) -> bytes:
        if self._connection is not None:
            self.content = self._connection.read(path, deadline_s=deadline_s)
        return self.content


class Benched(NamedTuple):
    """A bench of this machine, and a board that says the same again."""

    run: BenchRun
    board: Recorder


@pytest.fixture(scope="module")
def benched(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Benched:
    with LocalTransport().connect() as connection:
        board = Recorder(connection)
        found = timed(board, tmp_path_factory.mktemp("run"), artifact)
    board.stop()
    return Benched(found, board)


def timed(
    connection: Connection,
    directory: Path,
    artifact: Artifact,
    *,
    python: Path | str = sys.executable,
    deadline_s: float = 60.0,
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    place: Place = Place.DEVICE,
) -> BenchRun:
    return bench(
        connection,
        str(directory),
        artifact,
        runtime="onnxruntime",
        plan=SHORT,
        deadline_s=deadline_s,
        python=str(python),
        environment=environment,
        place=place,
    )


def test_a_bench_on_this_machine_gives_a_latency_and_why_it_is_invalid(benched: Benched) -> None:
    found = benched.run
    assert (found.outcome, found.message) == ("ok", None), found.stderr
    assert found.runtime["runtime"] == "onnxruntime"
    latency = found.latency
    assert latency is not None
    assert latency.queries == 80
    assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p95_ms <= latency.p99_ms
    assert latency.p50_ms < latency.duration_s * 1000 / 40  # half of 80 queries took as much
    assert latency.load_ms is not None
    assert latency.load_ms > 0
    assert latency.warm_up_queries == SHORT.warm_up_queries
    assert not latency.is_valid
    rules = [reason.partition(":")[0] for reason in found.reasons]
    assert rules[:3] == ["too few queries", "too short", "not warm"]
    assert found.memory is not None
    assert found.memory.peak_bytes > found.memory.imported_bytes > 1 << 20


def test_what_an_emulated_board_says_is_no_latency(
    benched: Benched, artifact: Artifact, tmp_path: Path
) -> None:
    assert timed(benched.board, tmp_path, artifact).latency == benched.run.latency
    emulated = timed(benched.board, tmp_path, artifact, place=Place.EMULATED)
    assert emulated.outcome == "ok"
    assert emulated.latency is None
    assert [reason.partition(":")[0] for reason in emulated.reasons] == ["emulated"]


def test_an_emulated_board_counts_work(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    counted = work(
        connection,
        str(tmp_path),
        artifact,
        runtime="onnxruntime",
        cpu="cortex-a72",
        deadline_s=60.0,
        python=sys.executable,
    )
    assert counted.work is not None, counted.stderr
    assert counted.work.inferences == COUNTING.min_queries
    assert counted.work.spread[0] <= counted.work.instructions <= counted.work.spread[1]


def test_latencies_that_were_cut_are_no_result(
    benched: Benched, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benched.board, "content", benched.board.content[:-8])
    with pytest.raises(ConnectionFailed, match="latencies for"):
        timed(benched.board, tmp_path, artifact)


def test_a_runtime_that_is_not_there_is_an_outcome(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/onnxruntime.py").write_text("raise ImportError('built for another board')\n")
    environment = {"PYTHONPATH": str(tmp_path / "fake")}
    found = timed(connection, tmp_path, artifact, environment=environment)
    assert found.outcome == "no-runtime"
    assert "built for another board" in (found.message or "")
    assert (found.latency, found.memory, found.reasons) == (None, None, ())


def test_a_damaged_file_is_an_outcome(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(artifact.directory, directory)
    (directory / "model.onnx").write_bytes(b"\0" * 100)
    damaged = Artifact(directory=directory, manifest=artifact.manifest)
    assert timed(connection, tmp_path, damaged).outcome == "damaged"


def test_a_python_that_ends_without_a_word_is_no_result(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionFailed, match="status 3"):
        timed(connection, tmp_path, artifact, python=script(tmp_path, "exit 3"))


def test_a_board_without_python_is_told(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(RequirementMissing, match="cannot start its Python"):
        timed(connection, tmp_path, artifact, python="python-that-is-nowhere")


def test_what_is_no_line_of_ours_is_no_result(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    printing = script(tmp_path, """echo hello; echo '{"event": "end", "outcome": "ok"}'""")
    with pytest.raises(ConnectionFailed, match="'hello'"):
        timed(connection, tmp_path, artifact, python=printing)


def test_a_run_ends_by_its_deadline(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    python = script(tmp_path, "exec sleep 60")
    with pytest.raises(DeadlinePassed):
        timed(connection, tmp_path, artifact, python=python, deadline_s=0.5)


def script(directory: Path, text: str) -> Path:
    """In place of Python."""
    path = directory / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_command_starts_without_a_vendor_package() -> None:
    code = "import sys, edgeship.device_tests.bench.run as _; print('asyncssh' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"
