"""Run: a smoke test over a connection to a board."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.artifact import MANIFEST_NAME, Artifact
from edgeship.device_tests.board_archive import ARCHIVE_NAME, archive_bytes
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.smoke.result import CaseResult, Outcome, SmokeRun
from edgeship.device_tests.smoke.sample import Sample, output_from_bytes
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    DeadlinePassed,
    Ended,
)
from edgeship.errors import Problem, RequirementMissing
from edgeship.targets.board_facts import BoardFacts

if TYPE_CHECKING:
    import numpy as np

_ARTIFACT: Final = "artifact"
_SAMPLE: Final = "sample"
_OUTPUTS: Final = "outputs"
_GRACE_S: Final = 5.0
"""The board's own deadline comes so much earlier than ours: then it can still say so. A choice."""
_CANNOT_START: Final = (126, 127)
"""Statuses of a shell, and of env, for a program that may not be run or is not there (POSIX)."""


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
    end_s = time.monotonic() + deadline_s
    _put(connection, directory, artifact, sample, _left_s(end_s))
    heard = Heard(where=f"smoke test of {artifact.directory.name} in {runtime}")
    left_s = _left_s(end_s)
    command = [
        *(python, f"{directory}/{ARCHIVE_NAME}", "smoke", f"{directory}/{_ARTIFACT}"),
        *("--runtime", runtime, "--threads", str(threads)),
        *("--deadline", f"{max(1.0, left_s - _GRACE_S):.0f}"),
        *([] if program is None else ["--program", program]),
        *(_sample_options(directory) if sample is not None else []),
    ]
    ended = connection.run(command, deadline_s=left_s, environment=environment, on_line=heard.line)
    _require_python(ended, python)
    heard.close(ended)
    try:
        outputs = _outputs(connection, directory, heard, end_s)
        return _result(heard, runtime, facts, outputs)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise heard.unreadable(found=f"{type(error).__name__}: {error}") from error


def _put(
    connection: Connection,
    directory: str,
    artifact: Artifact,
    sample: Sample | None,
    deadline_s: float,
) -> None:
    names = [MANIFEST_NAME, *(file.name for file in artifact.manifest.files)]
    files: dict[str, Path | bytes] = {ARCHIVE_NAME: archive_bytes()}
    files |= {f"{_ARTIFACT}/{name}": artifact.directory / name for name in names}
    if sample is not None:
        files |= {f"{_SAMPLE}/{name}": content for name, content in sample.files().items()}
    connection.put(files, directory, deadline_s=deadline_s)


def _sample_options(directory: str) -> list[str]:
    return ["--sample", f"{directory}/{_SAMPLE}", "--outputs", f"{directory}/{_OUTPUTS}"]


def _require_python(ended: Ended, python: str) -> None:
    if ended.status not in _CANNOT_START:
        return
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    problem = Problem(
        where=python,
        what="the board cannot start its Python",
        expected="Python 3.6 or newer",
        found=said[-1][:200] if said else f"status {ended.status}",
        remedy="name its path as `python` of the device, or install one there",
    )
    raise RequirementMissing(problem)


def _outputs(
    connection: Connection, directory: str, heard: Heard, end_s: float
) -> dict[str, np.ndarray]:
    """What the sample gave; what the board wrote is read, and nothing else."""
    found = {}
    for event in heard.all("sample"):
        for entry in event["outputs"]:
            if "/" in entry["file"]:
                message = f"file name {entry['file']!r}"
                raise ValueError(message)
            path = f"{directory}/{_OUTPUTS}/{entry['file']}"
            content = connection.read(path, deadline_s=_left_s(end_s))
            found[str(entry["name"])] = output_from_bytes(content, entry, event["count"])
    return found


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


def _left_s(end_s: float) -> float:
    left = end_s - time.monotonic()
    if left <= 0:
        problem = Problem(
            where="smoke test",
            what="the deadline passed before it was over",
            remedy="give it more time, or a smaller sample",
        )
        raise DeadlinePassed(problem)
    return left
