"""Troubles with a board, in the words that every transport uses for them."""

from __future__ import annotations

from edgeship.device_tests.transports.output import last_line
from edgeship.device_tests.transports.protocol import ConnectionFailed, DeadlinePassed
from edgeship.errors import Problem, RequirementMissing


def deadline_passed(
    where: str, what: str, *, deadline_s: float, heard: bytes = b""
) -> DeadlinePassed:
    """`what` did not end in time; `heard` is what it wrote to stderr until then."""
    line = last_line(heard)
    return DeadlinePassed(
        Problem(
            where=where,
            what=f"{what} did not end in time",
            expected=f"an end within {round(deadline_s, 1):g} s",
            found=f"its last words {line!r}" if line else None,
            remedy="see whether the board is busy or stuck, or allow more time",
        )
    )


def silent(where: str, what: str) -> DeadlinePassed:
    """A peer that does not even answer keepalives any more."""
    return DeadlinePassed(
        Problem(
            where=where,
            what=f"the board fell silent during {what}",
            remedy="see whether it hangs, ran out of memory or lost its network",
        )
    )


def connection_lost(where: str, what: str, reason: str) -> ConnectionFailed:
    """The connection ended before `what` did."""
    return ConnectionFailed(
        Problem(
            where=where,
            what=f"the connection ended during {what}",
            found=reason or None,
            remedy="try again; look at the board's network and power where it happens often",
        )
    )


def refused(where: str, what: str, reason: str) -> RequirementMissing:
    """The board was reached, and cannot do this: trying again would not help."""
    return RequirementMissing(
        Problem(
            where=where,
            what=f"the board refuses {what}",
            found=reason or None,
            remedy="see whether the path is right and writable and the disk has room",
        )
    )
