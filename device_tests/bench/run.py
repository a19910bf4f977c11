"""Run: an artifact's latencies, or its work, over a connection to a board."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.artifact import MANIFEST_NAME, Artifact
from edgeship.device_tests.bench.plan import COUNTING, Plan
from edgeship.device_tests.bench.samples import Record, read_record
from edgeship.device_tests.bench.summary import latency_of, work_of
from edgeship.device_tests.bench.validity import emulated_reason
from edgeship.device_tests.board_archive import ARCHIVE_NAME, archive_bytes
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    DeadlinePassed,
)
from edgeship.errors import Problem
from edgeship.latency import Latency, MemoryUse, Work
from edgeship.vocabulary import Place

_ARTIFACT: Final = "artifact"
_OUTPUTS: Final = "outputs"
_GRACE_S: Final = 5.0
"""The board's own deadline comes so much earlier than ours: then it can still say so. A choice."""


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """What a board said of one artifact's latencies.

    Attributes:
        outcome: "ok", or how it ended otherwise: "no-runtime", "refused", "out-of-memory", ...
        message: Why, in one clause; None for "ok".
        latency: None where the outcome is another, and of an emulated board.
        memory: None where the board does not say, or the runtime is another program.
        runtime: Package and version that ran it, `runtime` and `version` as in `Evidence.where`.
        reasons: Why the latency is invalid, or why there is none.
        stderr: The last that was written there.
    """

    outcome: str
    message: str | None
    latency: Latency | None
    memory: MemoryUse | None
    runtime: Mapping[str, str]
    reasons: tuple[str, ...]
    stderr: str


@dataclass(frozen=True, kw_only=True)
class WorkRun:
    """What one inference costs on an emulated board that counts; see `BenchRun`."""

    outcome: str
    message: str | None
    work: Work | None
    runtime: Mapping[str, str]
    stderr: str


def bench(
    connection: Connection,
    directory: str,
    artifact: Artifact,
    *,
    runtime: str,
    plan: Plan,
    deadline_s: float,
    threads: int = 1,
    python: str = "python3",
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    program: str | None = None,
    place: Place = Place.DEVICE,
) -> BenchRun:
    """Measure an artifact on a board.

    Args:
        connection: To the board; not closed.
        directory: Absolute path of an existing directory there, for this run alone.
        artifact: That is copied there whole.
        runtime: As manifests call it.
        plan: How much is measured; `Plan.limit_s` is the longest that it takes.
        deadline_s: Of copying, running and reading together.
        threads: Of the runtime.
        python: Program on the board.
        environment: For it, as PYTHONPATH.
        program: Path of llama-server there, where llama.cpp is a program.
        place: EMULATED gives no latency.

    Raises:
        ConnectionFailed: The board did not say how it ended, or said what cannot be read.
        DeadlinePassed: Neither within the deadline.
    """
    job = _Job(connection, directory, deadline_s)
    heard = job.run(artifact, runtime, plan, threads, python, environment, program)
    record = job.record(heard)
    latency: Latency | None = None
    reasons: tuple[str, ...] = ()
    if record is not None:
        emulated = emulated_reason(record, place)
        latency = None if emulated else latency_of(record, plan, threads=threads)
        reasons = (str(emulated),) if latency is None else latency.reasons
    return BenchRun(
        outcome=heard.outcome,
        message=heard.message,
        latency=latency,
        memory=heard.memory,
        runtime=heard.runtime,
        reasons=reasons,
        stderr=heard.stderr,
    )


def work(
    connection: Connection,
    directory: str,
    artifact: Artifact,
    *,
    runtime: str,
    cpu: str,
    deadline_s: float,
    plan: Plan = COUNTING,
    python: str = "python3",
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    program: str | None = None,
) -> WorkRun:
    """Count an artifact's instructions on an emulated board that counts (`-icount shift=0`).

    There one instruction takes one nanosecond of the guest's clock, so that what times a query
    counts its instructions. One thread. Arguments and errors are those of `bench`.

    Args:
        connection: To the board; not closed.
        directory: There.
        artifact: That is copied there whole.
        runtime: As manifests call it.
        cpu: QEMU's `-cpu`.
        deadline_s: Of all of it.
        plan: How many inferences.
        python: Program on the board.
        environment: For it.
        program: Path of llama-server there.
    """
    job = _Job(connection, directory, deadline_s)
    heard = job.run(artifact, runtime, plan, 1, python, environment, program)
    record = job.record(heard)
    return WorkRun(
        outcome=heard.outcome,
        message=heard.message,
        work=None if record is None else work_of(record, cpu=cpu),
        runtime=heard.runtime,
        stderr=heard.stderr,
    )


class _Job:
    """One run in one directory, under one deadline."""

    def __init__(self, connection: Connection, directory: str, deadline_s: float) -> None:
        self._connection = connection
        self._directory = directory
        self._end = time.monotonic() + deadline_s

    def run(
        self,
        artifact: Artifact,
        runtime: str,
        plan: Plan,
        threads: int,
        python: str,
        environment: Mapping[str, str],
        program: str | None,
    ) -> Heard:
        """Copy everything there and hear the board out."""
        self._put(artifact)
        heard = Heard(where=f"bench of {artifact.directory.name} in {runtime}")
        left_s = self._left_s()
        command = [
            *(
                python,
                f"{self._directory}/{ARCHIVE_NAME}",
                "bench",
                f"{self._directory}/{_ARTIFACT}",
            ),
            *("--runtime", runtime, "--threads", str(threads), "--plan", plan.to_json()),
            *("--outputs", f"{self._directory}/{_OUTPUTS}"),
            *("--deadline", f"{max(1.0, left_s - _GRACE_S):.0f}"),
            *([] if program is None else ["--program", program]),
        ]
        ended = self._connection.run(
            command, deadline_s=left_s, environment=environment, on_line=heard.line
        )
        heard.close(ended)
        return heard

    def record(self, heard: Heard) -> Record | None:
        """What was measured; None where the outcome is not "ok"."""
        if heard.outcome != "ok":
            return None
        try:
            path = f"{self._directory}/{_OUTPUTS}/{heard.last['file']}"
            content = self._connection.read(path, deadline_s=self._left_s())
            return read_record(heard.one("board"), heard.last, heard.all("sample"), content)
        except (KeyError, TypeError, ValueError, StopIteration, OSError) as error:
            raise heard.unreadable(found=f"{type(error).__name__}: {error}") from error

    def _put(self, artifact: Artifact) -> None:
        names = [MANIFEST_NAME, *(file.name for file in artifact.manifest.files)]
        files: dict[str, Path | bytes] = {ARCHIVE_NAME: archive_bytes()}
        files |= {f"{_ARTIFACT}/{name}": artifact.directory / name for name in names}
        self._connection.put(files, self._directory, deadline_s=self._left_s())

    def _left_s(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            problem = Problem(
                where="bench",
                what="the deadline passed before the run was over",
                remedy="give it more time, or a smaller plan",
            )
            raise DeadlinePassed(problem)
        return left
