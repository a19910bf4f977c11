"""Pressure: whether the kernel killed for want of memory, as far as it says so to anyone."""

import os
from typing import List, NamedTuple, Optional

_NEAR_NOTHING = 0.03
_NEAR_NOTHING_BYTES = 16 << 20
"""A choice: of MemTotal, or so much of a small board. It decides only where no counter does."""

Snapshot = NamedTuple("Snapshot", [("kills", int), ("available", Optional[int])])
"""Kills for want of memory since the start of the system and of the control group, and MemAvailable
in bytes."""


def look(root: str = "/") -> Snapshot:
    """The counters now; `root` is where /proc and /sys are."""
    kills = _count(os.path.join(root, "proc/vmstat"), "oom_kill")
    for path in _group_files(root):
        kills += _count(path, "oom_kill")
    return Snapshot(kills, _kib(root, "MemAvailable"))


def is_near_nothing(available: Optional[int], root: str = "/") -> bool:
    """Whether so little memory was left that the kernel's killer is the likely hand."""
    total = _kib(root, "MemTotal")
    if available is None or total is None:
        return False
    return available < max(_NEAR_NOTHING_BYTES, int(_NEAR_NOTHING * total))


def _group_files(root: str) -> List[str]:
    """Where this process's control groups count kills: cgroups(7), versions 2 and 1."""
    try:
        with open(os.path.join(root, "proc/self/cgroup")) as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    files = []
    for row in rows:
        group = row[-1].lstrip("/")
        if row[0] == "0":
            files.append(os.path.join(root, "sys/fs/cgroup", group, "memory.events"))
        elif "memory" in row[1].split(","):
            files.append(os.path.join(root, "sys/fs/cgroup/memory", group, "memory.oom_control"))
    return files


def _count(path: str, name: str) -> int:
    try:
        with open(path) as file:
            rows = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == name)


def _kib(root: str, name: str) -> Optional[int]:
    try:
        with open(os.path.join(root, "proc/meminfo")) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return None
