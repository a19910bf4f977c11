"""Job: one command of the board's program over one artifact, under one deadline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeship.artifact import MANIFEST_NAME, Artifact
from edgeship.device_tests.board_archive import ARCHIVE_NAME, archive_bytes
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    DeadlinePassed,
    Ended,
)
from edgeship.errors import Problem, RequirementMissing

_ARTIFACT: Final = "artifact"
_OUTPUTS: Final = "outputs"
_GRACE_S: Final = 5.0
"""The board's own deadline comes so much earlier than ours: then it can still say so. A choice."""
_CANNOT_START: Final = (126, 127)
"""Statuses of a shell, and of env, for a program that may not be run or is not there (POSIX)."""
_NO_FILES: Final[Mapping[str, Path | bytes]] = {}


class Job:
    """One run of one artifact in one runtime of a board.

    Args:
        connection: To the board; not closed.
        directory: Absolute path of an existing directory there, for this run alone.
        what: Is done, for messages: "smoke test".
        deadline_s: Of copying, running and reading together, from now on.
        python: Program on the board.
        environment: For it, as PYTHONPATH.
    """

    def __init__(
        self,
        connection: Connection,
        directory: str,
        *,
        what: str,
        deadline_s: float,
        python: str,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
    ) -> None:
        self._connection = connection
        self._directory = directory
        self._what = what
        self._end_s = time.monotonic() + deadline_s
        self._python = python
        self._environment = environment

    def run(
        self,
        command: str,
        artifact: Artifact,
        *,
        runtime: str,
        threads: int,
        program: str | None = None,
        options: Sequence[str] = (),
        files: Mapping[str, Path | bytes] = _NO_FILES,
    ) -> Heard:
        """Copy everything there, run it, and hear the board out.

        Args:
            command: "smoke" or "bench".
            artifact: That is copied there whole.
            runtime: As manifests call it.
            threads: Of the runtime.
            program: Path of llama-server there, where llama.cpp is a program.
            options: Of the command alone.
            files: That are copied there too, by their paths below the directory.

        Raises:
            RequirementMissing: The board has no such Python.
            ConnectionFailed: The board did not say how it ended.
            DeadlinePassed: Not within the deadline.
        """
        own = _files_of(artifact)
        self._connection.put({**own, **files}, self._directory, deadline_s=self._left_s())
        heard = Heard(where=f"{self._what} of {artifact.directory.name} in {runtime}")
        left_s = self._left_s()
        arguments = [
            *(self._python, self.path(ARCHIVE_NAME), command, self.path(_ARTIFACT)),
            *("--runtime", runtime, "--threads", str(threads), *options),
            *("--outputs", self.path(_OUTPUTS)),
            *("--deadline", f"{max(1.0, left_s - _GRACE_S):.0f}"),
            *([] if program is None else ["--program", program]),
        ]
        ended = self._connection.run(
            arguments, deadline_s=left_s, environment=self._environment, on_line=heard.line
        )
        _require_python(ended, self._python)
        heard.close(ended)
        return heard

    def read(self, name: str) -> bytes:
        """Contents of a file that the board wrote, and of no other one.

        Raises:
            ValueError: No plain name.
            FileNotFoundError: There is none.
            ConnectionFailed: Nor can be known whether.
        """
        if "/" in name:
            message = f"file name {name!r}"
            raise ValueError(message)
        return self._connection.read(self.path(f"{_OUTPUTS}/{name}"), deadline_s=self._left_s())

    def path(self, name: str) -> str:
        """Absolute path there of a file of this run."""
        return f"{self._directory}/{name}"

    def _left_s(self) -> float:
        left = self._end_s - time.monotonic()
        if left <= 0:
            problem = Problem(
                where=self._what,
                what="the deadline passed before the run on the board was over",
                remedy="give it more time, or less to do",
            )
            raise DeadlinePassed(problem)
        return left


def _files_of(artifact: Artifact) -> dict[str, Path | bytes]:
    """The artifact and the program of boards, by their paths below the directory of a run."""
    names = [MANIFEST_NAME, *(file.name for file in artifact.manifest.files)]
    files: dict[str, Path | bytes] = {ARCHIVE_NAME: archive_bytes()}
    return files | {f"{_ARTIFACT}/{name}": artifact.directory / name for name in names}


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
