"""Run: an artifact's latencies, or its work, over a connection to a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeship.artifact import Artifact
from edgeship.device_tests.bench.plan import COUNTING, Plan
from edgeship.device_tests.bench.samples import Record, read_record
from edgeship.device_tests.bench.summary import latency_of, work_of
from edgeship.device_tests.bench.validity import emulated_reason
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.job import Job
from edgeship.device_tests.transports.protocol import NO_ENVIRONMENT, Connection
from edgeship.latency import Latency, MemoryUse, Work
from edgeship.vocabulary import Place


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
        RequirementMissing: The board has no such Python.
        ConnectionFailed: The board did not say how it ended, or said what cannot be read.
        DeadlinePassed: Neither within the deadline.
    """
    job = Job(
        connection,
        directory,
        what="bench",
        deadline_s=deadline_s,
        python=python,
        environment=environment,
    )
    heard, record = _measured(
        job, artifact, plan, runtime=runtime, threads=threads, program=program
    )
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
    job = Job(
        connection,
        directory,
        what="bench",
        deadline_s=deadline_s,
        python=python,
        environment=environment,
    )
    heard, record = _measured(job, artifact, plan, runtime=runtime, threads=1, program=program)
    return WorkRun(
        outcome=heard.outcome,
        message=heard.message,
        work=None if record is None else work_of(record, cpu=cpu),
        runtime=heard.runtime,
        stderr=heard.stderr,
    )


def _measured(
    job: Job, artifact: Artifact, plan: Plan, *, runtime: str, threads: int, program: str | None
) -> tuple[Heard, Record | None]:
    """What the board said, and what it measured; None where the outcome is not "ok"."""
    heard = job.run(
        "bench",
        artifact,
        runtime=runtime,
        threads=threads,
        program=program,
        options=("--plan", plan.to_json()),
    )
    if heard.outcome != "ok":
        return heard, None
    try:
        content = job.read(heard.last["file"])
        record = read_record(heard.one("board"), heard.last, heard.all("sample"), content)
    except (KeyError, TypeError, ValueError, StopIteration, OSError) as error:
        raise heard.unreadable(found=f"{type(error).__name__}: {error}") from error
    return heard, record
