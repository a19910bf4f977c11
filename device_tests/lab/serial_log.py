"""Serial log: what the kernel of an emulated board said about processes that it ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# mm/oom_kill.c, __oom_kill_process: "%s: Killed process %d (%s) total-vm:%lukB, anon-rss:..."
_KILLED: Final = re.compile(
    r"Out of memory: Killed process (\d+) \((.*?)\).*?anon-rss:(\d+)kB", re.ASCII
)
# arch/arm64/kernel/traps.c, arm64_show_signal: "%s[%d]: unhandled exception: ", then what
_ILLEGAL: Final = re.compile(
    r"\] (.+)\[(\d+)\]: unhandled exception: .*undefined instruction", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class KilledForMemory:
    """A process that the board's kernel ended for want of memory; `rss_bytes` is what it had."""

    pid: int
    program: str
    rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class IllegalInstruction:
    """A process that met an instruction that the board's CPU has not."""

    pid: int
    program: str


def killed_for_memory(text: str) -> tuple[KilledForMemory, ...]:
    """Those that a log names, in its order."""
    return tuple(
        KilledForMemory(pid=int(pid), program=program, rss_bytes=int(rss) << 10)
        for pid, program, rss in _KILLED.findall(text)
    )


def illegal_instructions(text: str) -> tuple[IllegalInstruction, ...]:
    """Those that a log names, in its order."""
    return tuple(
        IllegalInstruction(pid=int(pid), program=program) for program, pid in _ILLEGAL.findall(text)
    )


def read_serial_log(file: Path) -> str:
    """All of it until now; empty where there is none yet."""
    try:
        return file.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""


def last_lines(text: str, count: int) -> str:
    """The last lines with something in them, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "nothing"
