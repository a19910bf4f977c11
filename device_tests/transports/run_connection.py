"""The connection of one run: marks what it starts, and comes back where the way was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from edgeship.device_tests.transports.attempts import Attempts, attempt
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    ConnectionFailed,
    Ended,
    Transport,
)
from edgeship.device_tests.transports.remnants import MARK, end_processes

T = TypeVar("T")


class RunConnection:
    """See `Connection`, of which it is one.

    A connection that failed is never used again: the next call opens a new one and first ends
    what the run has left running on the board. `put` and `read` may be done twice, and are tried
    again under their one deadline. `run` is not: who calls it knows whether that is harmless.

    Attributes:
        path: Of the run's directory on the board.
        was_open: Whether the board was ever reached.
    """

    def __init__(self, transport: Transport, base: str, name: str, *, attempts: Attempts) -> None:
        self.path = f"{base.rstrip('/')}/{name}"
        self._transport = transport
        self._base = base
        self._name = name
        self._attempts = attempts
        self._open = ExitStack()
        self._connection: Connection | None = None
        self._may_run = False
        self.was_open = False

    @property
    def where(self) -> str:
        """See `Transport.where`."""
        return self._transport.where

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        """See `Connection.run`; temporary files go into the run's directory."""
        marked = {"TMPDIR": self.path, **environment, MARK: self._name}
        return self.plainly(
            lambda connection, left_s: connection.run(
                command, deadline_s=left_s, environment=marked, on_line=on_line
            ),
            deadline_s,
        )

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        """See `Connection.put`; tried again on a new connection where one fails."""

        def put(connection: Connection, left_s: float) -> None:
            connection.put(files, directory, deadline_s=left_s)

        self._repeated(put, deadline_s)

    def read(self, path: str, *, deadline_s: float) -> bytes:
        """See `Connection.read`; tried again on a new connection where one fails."""
        return self._repeated(
            lambda connection, left_s: connection.read(path, deadline_s=left_s), deadline_s
        )

    def plainly(self, step: Callable[[Connection, float], T], deadline_s: float) -> T:
        """Do one step once on the connection below, without marks; it is opened where it must."""
        clock = self._attempts.clock
        end_s = clock() + deadline_s
        try:
            connection = self._opened(deadline_s)
            return step(connection, end_s - clock())
        except ConnectionFailed:
            self._may_run = True
            self.close()
            raise

    def close(self) -> None:
        """Close the connection below; a later call opens a new one."""
        self._connection = None
        self._open.close()

    def _repeated(self, step: Callable[[Connection, float], T], deadline_s: float) -> T:
        return attempt(
            lambda left_s: self.plainly(step, left_s),
            deadline_s=deadline_s,
            attempts=self._attempts,
        )

    def _opened(self, deadline_s: float) -> Connection:
        if self._connection is None:
            clock = self._attempts.clock
            end_s = clock() + deadline_s
            connect_s = min(deadline_s, self._attempts.connect_s)
            connection = self._open.enter_context(self._transport.connect(deadline_s=connect_s))
            self.was_open = True
            if self._may_run:
                end_processes(connection, self._base, self._name, deadline_s=end_s - clock())
                self._may_run = False
            self._connection = connection
        return self._connection
