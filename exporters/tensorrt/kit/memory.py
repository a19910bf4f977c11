"""Memory: what is free, what TensorRT may take of it, and whether a death was for want of it."""

import inspect
import os
import subprocess
import sys
from typing import Callable, List, NamedTuple, Optional, Tuple

from edgeship.exporters.tensorrt.kit import gpu
from edgeship.exporters.tensorrt.kit.stopped import Stopped

_MIB = 1 << 20
_ASK_S = 180.0
"""A choice: loading CUDA takes seconds, on a machine without its driver's daemon many."""
_LEAST_WORKSPACE_MIB = 16
"""A choice: with less, TensorRT leaves out tactics that any convolution has (its own default was
16 MiB up to 8.3)."""
_NEAR_NOTHING = 0.03
_NEAR_NOTHING_BYTES = 16 * _MIB
"""As in edgeship's board archive: of MemTotal, or so much of a small board."""
_WORDS: Tuple[str, ...] = (
    "out of memory",
    "OutOfMemory",
    "bad_alloc",
    "Cannot allocate memory",
    "Requested amount of GPU memory",
    "NvMapMemAlloc",
    "MemoryError",
)
"""What CUDA, TensorRT's error codes, C++, the C library, TensorRT's allocator, the memory manager
of Tegra and Python write."""
_NOT_FATAL: Tuple[str, ...] = ("[W]", "[I]", "[V]")
"""TensorRT warns of tactics that it skips for want of memory, and goes on."""


class Snapshot(NamedTuple):
    """Kills for want of memory since the system started, and MemAvailable in bytes."""

    kills: int
    available: Optional[int]


def available_bytes(root: str = "/") -> Optional[int]:
    """MemAvailable of /proc/meminfo; a Jetson's GPU has the same memory."""
    return _kib(root, "MemAvailable")


def look(root: str = "/") -> Snapshot:
    """The counters now: of the system and of this process's control groups (cgroups(7))."""
    kills = _count(os.path.join(root, "proc/vmstat"))
    for path in _group_files(root):
        kills += _count(path)
    return Snapshot(kills, available_bytes(root))


def is_near_nothing(available: Optional[int], root: str = "/") -> bool:
    """Whether so little was left that the kernel's killer is the likely hand."""
    total = _kib(root, "MemTotal")
    if available is None or total is None:
        return False
    return available < max(_NEAR_NOTHING_BYTES, int(_NEAR_NOTHING * total))


def says_out_of_memory(line: str) -> bool:
    """Whether a line that a builder wrote before it failed means that memory could not be had."""
    return any(word in line for word in _WORDS) and not any(tag in line for tag in _NOT_FATAL)


def gpu_bytes() -> Optional[int]:
    """What is free of a GPU's own memory, from a process that ends at once; None of a Jetson's."""
    if gpu.is_tegra():
        return None
    command = [sys.executable, "-c", inspect.getsource(gpu)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return int(done.stdout) if done.stdout.isdigit() else None


def workspace_mib(
    available: Optional[int],
    share: float,
    asked_mib: Optional[int],
    own: Callable[[], Optional[int]] = gpu_bytes,
) -> int:
    """MiB for TensorRT's workspace: what was asked, at most `share` of what is free.

    Args:
        available: Free bytes of the system.
        share: From 0 to 1.
        asked_mib: None leaves it to the share.
        own: Asks for the free bytes of a GPU that has its own memory: there the workspace is.

    Raises:
        Stopped: "out-of-memory": that is too little to build anything.
    """
    of_gpu = own()
    where = "" if of_gpu is None else " of the GPU's own memory"
    available = available if of_gpu is None else of_gpu
    if available is None:
        return asked_mib or _LEAST_WORKSPACE_MIB
    most = int(available * share) // _MIB
    if most < _LEAST_WORKSPACE_MIB:
        message = (
            "{} MiB{} are free: a workspace of {} MiB takes at least {} MiB; "
            "end other programs or the desktop{}".format(
                available // _MIB,
                where,
                _LEAST_WORKSPACE_MIB,
                int(_LEAST_WORKSPACE_MIB / share),
                "" if where else ", or add swap",
            )
        )
        raise Stopped("out-of-memory", message)
    return most if asked_mib is None else min(asked_mib, most)


def _group_files(root: str) -> List[str]:
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


def _count(path: str) -> int:
    try:
        with open(path) as file:
            rows = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == "oom_kill")


def _kib(root: str, name: str) -> Optional[int]:
    try:
        with open(os.path.join(root, "proc/meminfo")) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) << 10  # proc(5): in KiB
    except (OSError, ValueError):
        pass
    return None
