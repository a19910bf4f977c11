"""Memory of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_STATUS: Final = Path("/proc/self/status")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say.

    MemAvailable of /proc/meminfo (proc(5), in KiB), or what the control group leaves if that is
    less (cgroups(7), version 2).
    """
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        found = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no group, or "max"
        return found
    return min(found, max(0, limit - used))


def own_peak_bytes() -> int:
    """Largest resident memory of this process so far, mapped files included.

    VmHWM of /proc/self/status (proc(5), in KiB): ru_maxrss of getrusage(2) would hold what the
    parent had before exec(2). 0 where the system does not say.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0
