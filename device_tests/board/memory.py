"""Memory of a process, as its kernel counts it."""

import os
import resource
from typing import Optional

_PEAK = "VmHWM"
_CURRENT = "VmRSS"
_STATUS = "/proc/{}/status"


def peak_bytes(pid: Optional[int] = None) -> Optional[int]:
    """Largest resident size since the start, or since `reset_peak`; of this process by default.

    None where the process is gone, or its kernel does not say.
    """
    found = _field(_PEAK, pid)
    if found is None and pid is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # KiB: getrusage(2)
    return found


def current_bytes(pid: Optional[int] = None) -> Optional[int]:
    """Resident size now."""
    return _field(_CURRENT, pid)


def reset_peak() -> bool:
    """Begin a new peak; whether the kernel let us (proc(5): 5 into clear_refs, Linux 4.0)."""
    before = peak_bytes()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    after = peak_bytes()
    return before is not None and after is not None and after <= before


def offer_to_killer() -> None:
    """Let the kernel take this process first where memory runs out, not the board's own work."""
    try:
        with open(f"/proc/{os.getpid()}/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # another system, or it is forbidden: then the kernel chooses
        pass


def _field(name: str, pid: Optional[int]) -> Optional[int]:
    try:
        with open(_STATUS.format("self" if pid is None else pid)) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) << 10  # proc(5): in KiB
    except (OSError, ValueError):
        pass
    return None
