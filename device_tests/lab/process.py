"""Process: one that is known by its number and its start, so that no other is taken for it."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STATE, _START_TICKS = 0, 19
"""Fields 3 and 22 of /proc/PID/stat (proc(5)), counted after the name, which may hold spaces."""
_DEAD: Final = ("Z", "X")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process: numbers are given again, together with the start they are not.

    Attributes:
        pid: Its number.
        start_ticks: Clock ticks from the start of this machine to its own.
    """

    pid: int
    start_ticks: int


def find_identity(pid: int) -> ProcessIdentity | None:
    """The process that has the number now; None where none has, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE] in _DEAD:
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[_START_TICKS]))


def is_alive(process: ProcessIdentity) -> bool:
    """Whether that very process runs."""
    return find_identity(process.pid) == process


def kill_process(process: ProcessIdentity, *, deadline_s: float) -> bool:
    """End it with SIGKILL and wait for that; another one with its number is left alone.

    Returns:
        Whether it has ended within `deadline_s`, or had before.
    """
    try:
        handle = os.pidfd_open(process.pid)  # from here on the number cannot change its owner
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return bool(select.select([handle], [], [], deadline_s)[0])
    finally:
        os.close(handle)
