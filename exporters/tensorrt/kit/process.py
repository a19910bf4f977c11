"""Process: a fresh process for what may die, with a deadline, and the name of its death."""

import collections
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from typing import Deque, List, NamedTuple, Optional

from edgeship.exporters.tensorrt.kit import memory
from edgeship.exporters.tensorrt.kit.stopped import Stopped, first_line

_PR_SET_PDEATHSIG = 1
"""prctl(2), linux/prctl.h."""
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
"""Looked up here: between fork and exec nothing may wait for a lock of another thread."""
_LOOK_S = 0.1
"""A choice: between two looks at the free memory."""
_KEPT_LINES = 2000


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        status: Exit status; below 0 the signal that killed it.
        lines: The last that it wrote.
        seconds: That it took.
        peak_bytes: Largest resident size of it, or of one that it waited for.
        was_out_of_memory: The kernel killed for want of memory meanwhile, or had none.
        is_late: The deadline passed.
    """

    status: int
    lines: List[str]
    seconds: float
    peak_bytes: int
    was_out_of_memory: bool
    is_late: bool


def run_process(
    command: List[str],
    deadline_s: float,
    *,
    directory: Optional[str] = None,
    log: Optional[str] = None,
    has_open_stdin: bool = False,
) -> Ended:
    """Run a command to its end; what it writes goes to `log` too.

    It ends with this process however that ends. Its stdin is empty, or open and silent: the board
    archive ends where its stdin does.

    Raises:
        Stopped: "no-tensorrt": it cannot be started.
    """
    before = memory.look()
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(os.environ, CUDA_MODULE_LOADING="LAZY"),
            stdin=subprocess.PIPE if has_open_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        )
    except OSError as error:
        message = f"{command[0]} cannot be started: {error.strerror}"
        raise Stopped("no-tensorrt", message) from error
    watch = _Watch(process, deadline_s)
    try:
        lines = _listen(process, log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status  # so that Popen asks no more
    except BaseException:
        _kill(process)
        process.wait()
        raise
    finally:
        watch.end()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
    after = memory.look()
    return Ended(
        status=-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        lines=lines,
        seconds=time.monotonic() - begin,
        peak_bytes=usage.ru_maxrss << 10,  # KiB: getrusage(2)
        was_out_of_memory=after.kills > before.kills or memory.is_near_nothing(watch.least),
        is_late=watch.is_late,
    )


def end_with_parent() -> None:
    """Have the kernel end this process where the one that started it ends, however that is."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def death_of(ended: Ended, what: str) -> Stopped:
    """Outcome and one sentence for a process that did not do its work."""
    said = [line for line in ended.lines if memory.says_out_of_memory(line)]
    if ended.is_late:
        return Stopped("timeout", f"{what} was not finished after {ended.seconds:.0f} s")
    if ended.status == -signal.SIGKILL and ended.was_out_of_memory:
        message = f"{what}: the kernel killed it for want of memory (SIGKILL)"
        return Stopped("out-of-memory", message + "; end other programs, or add swap")
    if said:
        message = f"{what}: memory could not be had: {first_line(said[-1])}"
        return Stopped("out-of-memory", message)
    if ended.status < 0:
        message = f"{what} was killed by a signal from outside ({_name(-ended.status)})"
        return Stopped("killed", message)
    return Stopped("build-failed", f"{what} failed: {_complaint(ended)}")


def _complaint(ended: Ended) -> str:
    """The first line that TensorRT marks as an error, or the last that was written."""
    errors = [line for line in ended.lines if "[E]" in line or "[F]" in line]
    if errors:
        return first_line(errors[0])
    said = [line for line in ended.lines if line.strip()]
    return first_line(said[-1]) if said else f"it ended with status {ended.status}"


def _listen(process: "subprocess.Popen[bytes]", log: Optional[str]) -> List[str]:
    kept: Deque[str] = collections.deque(maxlen=_KEPT_LINES)
    assert process.stdout is not None  # a pipe
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "wb")) if log is not None else None
        for line in process.stdout:
            kept.append(line.decode("utf-8", "replace").rstrip())
            if file is not None:
                file.write(line)
    return list(kept)


class _Watch:
    """Looks at the free memory and at the clock until the process has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]", deadline_s: float) -> None:
        self.least: Optional[int] = None
        self.is_late = False
        self._process = process
        self._deadline_s = deadline_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        begin = time.monotonic()
        while not self._is_over.wait(_LOOK_S):
            available = memory.available_bytes()
            if available is not None:
                self.least = available if self.least is None else min(self.least, available)
            if time.monotonic() - begin > self._deadline_s and not self.is_late:
                self.is_late = True
                _kill(self._process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)


def _end_with_parent() -> None:
    """In the child: a group of its own, which the kernel kills where the parent ends."""
    os.setsid()
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
