"""Child: one worker process, listened to until it ends, with its memory watched."""

import collections
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Callable, Deque, Dict, List, NamedTuple, Optional

from edgeship.device_tests.board import memory, pressure
from edgeship.device_tests.board.ending import outcome_of
from edgeship.device_tests.board.stopped import first_line

LOOK_S = 0.05
"""A choice: between two looks at the worker's memory."""
_KEPT_LINES = 40
_END = b'{"event": "end"'
"""How `Lines.say` begins the last event."""

Ended = NamedTuple(
    "Ended", [("outcome", str), ("values", Dict[str, object]), ("peak_bytes", Optional[int])]
)
"""How a worker ended: what its last event said, or what its death says; and its largest resident
size, from its start on."""


class Child:
    """A running worker. `stop` may be called from any thread, or from a signal's handler.

    Each look at the worker's memory takes a core for a moment: `look_s` is the time between two.
    """

    def __init__(self, command: List[str], *, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._before = pressure.look()
        self._least_available = self._before.available
        self._peak: Optional[int] = None
        self._said: Deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._reason: Optional[Dict[str, object]] = None
        self._is_over = threading.Event()
        self._process = subprocess.Popen(
            _python() + command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def stop(self, outcome: str, message: str) -> None:
        """End it, for this reason unless there is one already."""
        if self._reason is None:
            self._reason = {"outcome": outcome, "message": message}
        if not self._is_over.is_set():
            os.kill(self._process.pid, signal.SIGKILL)  # Popen.kill would reap it, and its usage

    def listen(self, relay: Callable[[bytes], None], deadline_s: Optional[float]) -> Ended:
        """Relay each event but the last one, which comes back with what the kernel knows."""
        threads = [
            threading.Thread(target=self._watch, args=(deadline_s,), daemon=True),
            threading.Thread(target=self._relay_errors, daemon=True),
        ]
        for thread in threads:
            thread.start()
        last: Optional[bytes] = None
        assert self._process.stdout is not None  # a pipe
        try:
            for line in self._process.stdout:
                if line.startswith(_END) and line.endswith(b"\n"):
                    last = line
                elif line.endswith(b"\n"):  # half a line is what death interrupted
                    relay(line)
        except OSError:  # nobody listens to us
            self.stop("killed", "nobody listens any more")
        status = self._wait()
        for thread in threads:
            thread.join(1.0)  # a grandchild may hold stderr open
        return self._ended(status, last)

    def _wait(self) -> int:
        _, status, usage = os.wait4(self._process.pid, 0)
        self._is_over.set()
        self._process.returncode = status  # so that Popen asks no more
        self._peak = max(self._peak or 0, usage.ru_maxrss << 10)  # KiB: getrusage(2)
        return status

    def _ended(self, status: int, last: Optional[bytes]) -> Ended:
        if self._reason is not None:
            values = dict(self._reason)
        elif last is not None and status == 0:
            values = json.loads(last.decode("ascii"))
            del values["event"]
        else:
            values = self._death(status)
        return Ended(str(values["outcome"]), values, self._peak)

    def _death(self, status: int) -> Dict[str, object]:
        after = pressure.look()
        was_out_of_memory = after.kills > self._before.kills or pressure.is_near_nothing(
            self._least_available
        )
        stderr = "\n".join(self._said)
        found = outcome_of(status, stderr=stderr, was_out_of_memory=was_out_of_memory)
        if found is None:
            said = first_line(self._said[-1]) if self._said else "no message"
            found = "failed", f"it ended with status {status >> 8}: {said}"
        return {"outcome": found[0], "message": found[1]}

    def _watch(self, deadline_s: Optional[float]) -> None:
        end = math.inf if deadline_s is None else time.monotonic() + deadline_s
        while not self._is_over.wait(min(self._look_s, max(0.0, end - time.monotonic()))):
            available = pressure.look().available
            if available is not None and self._least_available is not None:
                self._least_available = min(self._least_available, available)
            self._peak = max(self._peak or 0, memory.peak_bytes(self._process.pid) or 0)
            if time.monotonic() >= end:
                self.stop("timeout", f"not finished within {deadline_s:g} s")
                return

    def _relay_errors(self) -> None:
        assert self._process.stderr is not None  # a pipe
        stream: IO[bytes] = self._process.stderr
        for line in stream:
            self._said.append(line.decode("utf-8", "replace").rstrip())
            try:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
            except OSError:  # nobody listens; the pipe is still emptied
                pass


def _python() -> List[str]:
    """This Python, started as it was: without site packages or the environment, where so."""
    flags = [
        ("-I", sys.flags.isolated),
        ("-S", sys.flags.no_site),
        ("-E", sys.flags.ignore_environment),
    ]
    return [sys.executable] + [name for name, is_set in flags if is_set]
