"""Run: a smoke test over a connection to a board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.artifact import Artifact
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.job import Job
from edgeship.device_tests.smoke.result import CaseResult, Outcome, SmokeRun
from edgeship.device_tests.smoke.sample import Sample, output_from_bytes
from edgeship.device_tests.transports.protocol import NO_ENVIRONMENT, Connection
from edgeship.targets.board_facts import BoardFacts

if TYPE_CHECKING:
    import numpy as np

_SAMPLE: Final = "sample"


def smoke(
    connection: Connection,
    directory: str,
    artifact: Artifact,
    facts: BoardFacts | None = None,
    *,
    runtime: str,
    sample: Sample | None = None,
    deadline_s: float,
    threads: int = 1,
    python: str = "python3",
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    program: str | None = None,
) -> SmokeRun:
    """Run an artifact's golden pack on a board, then a sample.

    Args:
        connection: To the board; not closed.
        directory: Absolute path of an existing directory there, for this run alone.
        artifact: That is copied there whole.
        facts: What a probe found; names the CPU and the OS.
        runtime: As manifests call it.
        sample: Of the evaluation data; None for the golden pack alone.
        deadline_s: Of copying, running and reading together.
        threads: Of the runtime.
        python: Program on the board.
        environment: For it, as PYTHONPATH.
        program: Path of llama-server there, where llama.cpp is a program.

    Raises:
        RequirementMissing: The board has no such Python.
        ConnectionFailed: The board did not say how it ended, or said what cannot be read: what was
            heard is no result.
        DeadlinePassed: Neither within the deadline.
    """
    job = Job(
        connection,
        directory,
        what="smoke test",
        deadline_s=deadline_s,
        python=python,
        environment=environment,
    )
    heard = job.run(
        "smoke",
        artifact,
        runtime=runtime,
        threads=threads,
        program=program,
        options=() if sample is None else ("--sample", job.path(_SAMPLE)),
        files=_sample_files(sample),
    )
    try:
        outputs = _outputs(job, heard)
        return _result(heard, runtime, facts, outputs)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise heard.unreadable(found=f"{type(error).__name__}: {error}") from error


def _sample_files(sample: Sample | None) -> dict[str, Path | bytes]:
    files = {} if sample is None else sample.files()
    return {f"{_SAMPLE}/{name}": content for name, content in files.items()}


def _outputs(job: Job, heard: Heard) -> dict[str, np.ndarray]:
    """What the sample gave."""
    return {
        str(entry["name"]): output_from_bytes(job.read(entry["file"]), entry, event["count"])
        for event in heard.all("sample")
        for entry in event["outputs"]
    }


def _result(
    heard: Heard, runtime: str, facts: BoardFacts | None, outputs: Mapping[str, np.ndarray]
) -> SmokeRun:
    memory: Mapping[str, Any] = next(iter(heard.all("memory")), {})
    sample: Mapping[str, Any] = next(iter(heard.all("sample")), {})
    return SmokeRun(
        outcome=Outcome(heard.outcome),
        message=heard.message,
        diagnosis=heard.last.get("diagnosis"),
        runtime=runtime,
        where=_where(heard, facts),
        cases=tuple(CaseResult.from_event(event) for event in heard.all("case")),
        imported_bytes=memory.get("imported_bytes"),
        peak_bytes=memory.get("peak_bytes"),
        worker_peak_bytes=heard.last.get("worker_peak_bytes"),
        is_peak_reset=bool(memory.get("is_reset", False)),
        outputs=outputs,
        sample_message=sample.get("message"),
        stderr=heard.stderr,
    )


def _where(heard: Heard, facts: BoardFacts | None) -> dict[str, str]:
    """The probe knows CPU and OS better than Python does."""
    start: Mapping[str, Any] = next(iter(heard.all("start")), {})
    machine = f"{start.get('system', '')} {start.get('machine', '')}".strip() or None
    cpu = (facts.cpu if facts else None) or start.get("cpu") or start.get("machine")
    system = (facts.os if facts else None) or machine
    known = {"cpu": cpu, "os": system, **heard.runtime}
    return {key: str(value) for key, value in known.items() if value is not None}
