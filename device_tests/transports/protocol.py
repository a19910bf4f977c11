"""What a transport can do for the rest of the house, and how a command on a board ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from edgeship.errors import RequirementMissing

NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


class ConnectionFailed(RequirementMissing):
    """A board cannot be reached, or a connection to it ended before its work did (exit 8).

    What was heard until then is no result.
    """


class HostKeyRefused(ConnectionFailed):
    """A board shows another host key than the known one, or none is known: never retried."""


class DeadlinePassed(ConnectionFailed):
    """A board was reached, and did not answer or finish within the time that it was given."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        command: As it was given.
        status: Its exit status; None where a signal ended it.
        signal: Name of that signal without "SIG", like "ILL" or "KILL"; None where none did. A
            shell between us and the command turns signals into statuses above 128; transports
            turn them back.
        stdout: What it wrote, at most the last 1 MiB; empty where lines were given away.
        stderr: The same of its errors.
    """

    command: tuple[str, ...]
    status: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes

    @property
    def is_ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == 0


class Connection(Protocol):
    """An open way to one board. Not for several threads at once.

    Every method raises ConnectionFailed where the connection is lost, DeadlinePassed where
    `deadline_s` passes; what ran is then ended on the board, as far as it can still be reached.
    """

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        """Run a program, found by the board's PATH; no shell reads its arguments.

        `on_line` gets each line of stdout as it comes, without its end. The command's stdin stays
        open and empty for as long as we listen: where it ends, nobody does any more.
        """
        ...

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        """Copy files into an existing directory of the board.

        Args:
            files: Path below `directory`, with forward slashes, to a file here or its contents;
                directories on the way are made. Files that may be run here may be run there.
            directory: Absolute path on the board.
            deadline_s: Of all of them together.
        """
        ...

    def read(self, path: str, *, deadline_s: float) -> bytes:
        """Contents of a file on the board; raises FileNotFoundError where there is none."""
        ...


class Transport(Protocol):
    """How to reach one board."""

    @property
    def where(self) -> str:
        """For messages: "ssh pi@10.0.0.7:22", "this machine"."""
        ...

    def connect(self, *, deadline_s: float = 30.0) -> AbstractContextManager[Connection]:
        """Open a connection, which is closed at the end whatever happened.

        Raises:
            ConnectionFailed: Nobody answers, or the login or host key is refused.
        """
        ...
