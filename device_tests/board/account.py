"""Account: what a job says of the runtime that it uses, and of the memory that it takes."""

import os
import platform
from typing import Optional

from edgeship.device_tests.board import memory
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.packages import require_numpy
from edgeship.device_tests.board.runtimes import Loaded
from edgeship.device_tests.board.session import Session


class MemoryAccount:
    """Begins when it is made: after the runtime's import, before its model."""

    def __init__(self) -> None:
        self._imported = memory.current_bytes()
        self._is_reset = memory.reset_peak()

    def say(self, lines: Lines, session: Session) -> None:
        """Event "memory", of the process that holds the model: this one, or the program's.

        Without a reset the peak may be that of an import; it is then no less than what the model
        took.
        """
        outside = session.peak_bytes()
        if outside is not None:
            lines.say("memory", imported_bytes=None, peak_bytes=outside, is_reset=True)
            return
        lines.say(
            "memory",
            imported_bytes=self._imported,
            peak_bytes=memory.peak_bytes(),
            is_reset=self._is_reset,
        )


def say_start(lines: Lines, loaded: Loaded, threads: int) -> None:
    """Event "start": what runs the artifact, and where."""
    lines.say(
        "start",
        python=platform.python_version(),
        numpy=require_numpy(),
        runtime=loaded.name,
        package=loaded.package,
        version=loaded.version,
        kind=loaded.kind,
        threads=threads,
        machine=platform.machine(),
        system=platform.system(),
        cpu=_cpu_name(),
        pid=os.getpid(),
    )


def _cpu_name() -> Optional[str]:
    """The first `model name` of /proc/cpuinfo, which x86 has and most ARM boards have not."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = (line.partition(":")[2] for line in file if line.startswith("model name"))
            return next(names, "").strip() or None
    except OSError:
        return None
