"""Leases: whether a directory that a run left on a board still belongs to somebody.

A board cannot see whether the machine that made a directory is alive. So each directory holds a
line that says who made it, and when nobody may count on it any more, in a clock that no time
server moves: seconds since the board's boot.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNKNOWN: Final = "-"
_PROC: Final = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the lease file of a run directory says.

    Attributes:
        boot: Boot id of the board when it was written; "-" where the board has none.
        ends_s: Uptime of the board at which the directory is nobody's.
        owner: The process that made it, as `owner_of_this_process` names it; "-" where unknown.
    """

    boot: str
    ends_s: int
    owner: str

    @classmethod
    def from_text(cls, text: str) -> Lease | None:
        """Read "boot ends owner"; None where it is something else."""
        match text.split():
            case [boot, ends, owner] if ends.isdigit():
                return cls(boot=boot, ends_s=int(ends), owner=owner)
            case _:
                return None

    def is_over(
        self, *, boot: str, uptime_s: int, is_running: Callable[[str], bool | None]
    ) -> bool:
        """Whether nobody comes back to the directory.

        Args:
            boot: Boot id of the board now: nothing that ran survived a reboot.
            uptime_s: Of the board now.
            is_running: Whether an owner runs; None where that cannot be said from here.
        """
        return self.boot != boot or uptime_s >= self.ends_s or is_running(self.owner) is False


def owner_of_this_process() -> str:
    """Boot, pid namespace, user, pid and start of this process, with ":"; "-" without /proc.

    They name a process once and for all, on all machines.
    """
    machine = _machine()
    started = _start_of(os.getpid())
    return UNKNOWN if machine is None else f"{machine}:{os.getpid()}:{started}"


def is_owner_running(owner: str) -> bool | None:
    """Whether a process of this machine and user runs; None for all others."""
    machine, _, process = owner.rpartition(":")[0].rpartition(":")
    started = owner.rpartition(":")[2]
    if not machine or machine != _machine() or not process.isdigit():
        return None
    return _start_of(int(process)) == started


def _machine() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return None
    return f"{boot}:{namespace}:{os.getuid()}"  # another user's processes may be hidden from us


def _start_of(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process: field 22 of proc(5)'s stat."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]  # the name before it may hold anything
