"""Probe: asks a board what it is and has, without changing anything outside of the run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from edgeship.device_tests.probe.assembly import facts_from_sections
from edgeship.device_tests.probe.described import (
    COMMAND,
    Described,
    described_from_lines,
    not_described,
)
from edgeship.device_tests.probe.script import ProbePaths, probe_script, sections_from_text
from edgeship.device_tests.transports.protocol import NO_ENVIRONMENT, Connection, Ended
from edgeship.errors import Problem, RequirementMissing
from edgeship.targets.board_facts import BoardFacts

ARCHIVE_NAME: Final = "edgeship-board.pyz"
_NO_PATHS: Final = ProbePaths()
_SHOWN: Final = 300
"""Characters of a board's own words in one of our messages."""


def probe(
    connection: Connection,
    *,
    directory: str,
    archive: bytes | None,
    python: str = "python3",
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    program: str | None = None,
    paths: ProbePaths = _NO_PATHS,
    deadline_s: float = 300.0,
) -> BoardFacts:
    """Ask the board, by a shell script and by its Python.

    Args:
        connection: To the board.
        directory: Existing directory of the run, on the board; its free space is told.
        archive: The program of boards, which is put there and asked for runtimes; None does
            without. A board without Python still gets all the rest, with a note.
        python: Python on the board, found by its PATH, or a path.
        environment: For that Python: where its packages are.
        program: A llama-server on the board, to be asked too.
        paths: What the script asks.
        deadline_s: Of the script, and again of the search for runtimes, which imports each of
            them: one took 25 s on an emulated Cortex-A53 (measured).

    Raises:
        RequirementMissing: The board has no shell that runs the script to its end.
        ConnectionFailed: The board was lost, or took longer than the deadline.
    """
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    script = probe_script(paths, runs=directory)
    ended = connection.run(["sh", "-c", script], deadline_s=deadline_s)
    try:
        sections = sections_from_text(ended.stdout.decode(errors="replace"))
    except ValueError as error:
        raise RequirementMissing(_no_shell(ended)) from error
    if archive is None:
        described = not_described("the program for it was not copied")
    else:
        connection.put({ARCHIVE_NAME: archive}, directory, deadline_s=deadline_s)
        command = [python, f"{directory}/{ARCHIVE_NAME}", COMMAND]
        if program is not None:
            command += ["--program", program]
        described = _described(
            connection.run(command, environment=environment, deadline_s=deadline_s)
        )
    return facts_from_sections(sections, described, at=at)


def _described(ended: Ended) -> Described:
    lines = ended.stdout.decode(errors="replace").splitlines()
    described = described_from_lines(lines)
    if described.python is None:
        return not_described(f"{ended.command[0]} {_how(ended)}")
    return described


def _no_shell(ended: Ended) -> Problem:
    return Problem(
        where="sh",
        what="the board's shell did not run the probe to its end",
        expected="a POSIX shell",
        found=_how(ended),
        remedy="look at what `sh` is there",
    )


def _how(ended: Ended) -> str:
    """How a command ended, with its last line of errors."""
    end = f"ended by SIG{ended.signal}" if ended.signal else f"ended with {ended.status}"
    errors = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"{end}: {errors[-1][:_SHOWN]}" if errors else end
