"""Attempts: steps that may be done twice are done again, on a fresh connection, in one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeship.device_tests.transports.protocol import (
    Connection,
    ConnectionFailed,
    HostKeyRefused,
    Transport,
)

T = TypeVar("T")


class LoginRefused(ConnectionFailed):
    """A board answers and does not let us in: asking again would only get us banned."""


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """How often a step is tried, and how patiently.

    Attributes:
        times: At most, the first one included.
        pause_s: Before the second attempt; doubles with each further one.
        connect_s: What one connection may take at most; a peer that falls silent in the middle of
            a handshake must not eat the time of the next attempt.
        sleep: How to wait, in seconds.
        clock: Monotonic, in seconds.
    """

    times: int = 3
    pause_s: float = 0.5
    connect_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def attempt(step: Callable[[float], T], *, deadline_s: float, attempts: Attempts) -> T:
    """Do a step, again where its connection fails, until one succeeds or the deadline is near.

    Args:
        step: Takes the seconds that are left. It must be harmless to do it twice.
        deadline_s: Of all attempts and pauses together.
        attempts: How often and how patiently.

    Raises:
        ConnectionFailed: The last attempt's; HostKeyRefused and LoginRefused end it at once.
    """
    end_s = attempts.clock() + deadline_s
    pause_s = attempts.pause_s
    for _ in range(attempts.times - 1):
        try:
            return step(end_s - attempts.clock())
        except (HostKeyRefused, LoginRefused):
            raise
        except ConnectionFailed:
            if attempts.clock() + pause_s >= end_s:
                raise
            attempts.sleep(pause_s)
            pause_s *= 2
    return step(end_s - attempts.clock())


def attempt_connected(
    transport: Transport,
    step: Callable[[Connection, float], T],
    *,
    deadline_s: float,
    attempts: Attempts | None = None,
) -> T:
    """Do a step on a connection of its own, as `attempt` does; each attempt gets a fresh one."""
    patience = attempts or Attempts()

    def connected(left_s: float) -> T:
        start_s = patience.clock()
        with transport.connect(deadline_s=min(left_s, patience.connect_s)) as connection:
            return step(connection, left_s - (patience.clock() - start_s))

    return attempt(connected, deadline_s=deadline_s, attempts=patience)
