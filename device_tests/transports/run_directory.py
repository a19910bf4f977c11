"""A directory of its own for each run on a board, which is gone afterwards whatever happened."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from edgeship.device_tests.transports.attempts import Attempts, attempt
from edgeship.device_tests.transports.lease import is_owner_running, owner_of_this_process
from edgeship.device_tests.transports.protocol import Connection, ConnectionFailed, Transport
from edgeship.device_tests.transports.remnants import (
    PREFIX,
    Survey,
    create_directory,
    remove_directories,
)
from edgeship.device_tests.transports.run_connection import RunConnection
from edgeship.errors import EdgeshipError, Problem

_LIFETIME_S: Final = 12 * 3600
_STEP_S: Final = 30.0


class RunPlace(NamedTuple):
    """Where a run takes place.

    Attributes:
        connection: To the board; reconnects (see `RunConnection`).
        path: Absolute path of the run's directory there, mode 700.
    """

    connection: Connection
    path: str


@contextmanager
def run_directory(
    transport: Transport,
    base: str,
    *,
    setup_s: float = 60.0,
    removal_s: float = 60.0,
    lifetime_s: int = _LIFETIME_S,
    attempts: Attempts | None = None,
) -> Iterator[RunPlace]:
    """Make `base/edgeship-run-XXXXXXXX` on a board; end what runs of it and remove it at the end.

    Directories that earlier runs had to leave are removed, too, once their leases are over: after
    a reboot of the board, after the death of the process that made them (where that was on this
    machine), or after their lifetime.

    Args:
        transport: The way to the board.
        base: Existing directory there in which we may write: "/var/tmp".
        setup_s: Deadline for connecting and making the directory.
        removal_s: Deadline for ending and removing everything, new connections included.
        lifetime_s: When others may take the directory for abandoned, seconds after its making.
        attempts: How often connections, uploads, reads and the removal are tried.

    Raises:
        RequirementMissing: The board refuses to make the directory.
        ConnectionFailed: The board cannot be reached; at the end, with the problem of the run
            itself before it, also where something had to stay there: the message says what.
    """
    patience = attempts or Attempts()
    name = PREFIX + secrets.token_hex(4)
    connection = RunConnection(transport, base, name, attempts=patience)
    try:
        survey = _create(connection, base, name, setup_s, lifetime_s, patience)
        _sweep(connection, base, survey)
        yield RunPlace(connection, connection.path)
    except BaseException as error:
        left = _removed(connection, base, name, removal_s, patience)
        if left is None:
            raise
        if isinstance(error, EdgeshipError):
            kind = type(error) if isinstance(error, ConnectionFailed) else ConnectionFailed
            raise kind(*error.problems, left) from error
        error.add_note(str(left))
        raise
    else:
        left = _removed(connection, base, name, removal_s, patience)
        if left is not None:
            raise ConnectionFailed(left)
    finally:
        connection.close()


def _create(
    connection: RunConnection,
    base: str,
    name: str,
    deadline_s: float,
    lifetime_s: int,
    attempts: Attempts,
) -> Survey:
    """Make the directory; an attempt whose answer was lost may have made it, so it goes first."""
    is_first = True

    def create(left_s: float) -> Survey:
        nonlocal is_first
        if not is_first:
            connection.plainly(
                lambda plain, s: remove_directories(plain, base, [name], deadline_s=s), left_s
            )
        is_first = False
        return connection.plainly(
            lambda plain, s: create_directory(
                plain,
                base,
                name,
                where=connection.where,
                owner=owner_of_this_process(),
                lifetime_s=lifetime_s,
                deadline_s=s,
            ),
            left_s,
        )

    return attempt(create, deadline_s=deadline_s, attempts=attempts)


def _sweep(connection: RunConnection, base: str, survey: Survey) -> None:
    """Remove what runs that are over had to leave; the next run tries again what does not go."""
    names = [
        name
        for name, lease in survey.leases.items()
        if lease.is_over(boot=survey.boot, uptime_s=survey.uptime_s, is_running=is_owner_running)
    ]
    if names:
        connection.plainly(
            lambda plain, s: remove_directories(plain, base, names, deadline_s=s), _STEP_S
        )


def _removed(
    connection: RunConnection, base: str, name: str, deadline_s: float, attempts: Attempts
) -> Problem | None:
    """End and remove everything of a run; the problem where that cannot be done or known."""
    if not connection.was_open:  # then nothing was made, and nobody would answer now
        return None

    def remove(left_s: float) -> bool:
        return connection.plainly(
            lambda plain, s: remove_directories(plain, base, [name], deadline_s=s), left_s
        )

    try:
        is_gone = attempt(remove, deadline_s=deadline_s, attempts=attempts)
        found = "something there cannot be ended or removed"
    except EdgeshipError as error:
        is_gone = False
        found = error.problems[0].found or error.problems[0].what
    if is_gone:
        return None
    return Problem(
        where=connection.where,
        what=f"{base}/{name} may stay on the board, and what runs out of it",
        found=found,
        remedy="the next run there removes it; or remove it by hand",
    )
