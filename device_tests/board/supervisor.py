"""Supervisor: starts workers, names how they end, and ends with whoever asked for them."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Callable, Dict, List, Optional

from edgeship.device_tests.board.arguments import parse
from edgeship.device_tests.board.child import LOOK_S, Child, Ended
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.stopped import Stopped

_LOOK_S = {"bench": 1.0}
"""By command, where it is not `LOOK_S`: what is timed is left alone, but for a look a second, as
often as its own sensors are read."""


class Supervisor:
    """Runs one worker at a time; `command` starts one, with its own process id and more behind."""

    def __init__(self, command: List[str], lines: Lines) -> None:
        self._command = command
        self._child: Optional[Child] = None
        self._reason: Optional[str] = None
        self.lines = lines

    def run(
        self,
        arguments: List[str],
        *,
        deadline_s: Optional[float] = None,
        relay: Optional[Callable[[bytes], None]] = None,
    ) -> Ended:
        """Run a worker with these arguments; its events go to `relay`, by default to the lines."""
        look_s = _LOOK_S.get(arguments[0], LOOK_S)
        self._child = Child([*self._command, str(os.getpid()), *arguments], look_s=look_s)
        if self._reason is not None:  # it came before the child
            self._child.stop("killed", self._reason)
        return self._child.listen(relay or self.lines.relay, deadline_s)

    def end(self, reason: str) -> None:
        """End the worker that runs, and each one that is still to come."""
        self._reason = reason
        if self._child is not None:
            self._child.stop("killed", reason)


def supervise(command: List[str], arguments: List[str], lines: Lines) -> str:
    """Run one command of the archive to its last event; its outcome.

    Args:
        command: Archive and option that start a worker.
        arguments: The command and its options.
        lines: Where events go.
    """
    supervisor = Supervisor(command, lines)
    _end_on_signals(supervisor)
    try:
        options = parse(arguments)
        if options.command != "self-test":  # which people start, and scripts without a stdin
            threading.Thread(target=_end_with_stdin, args=(supervisor,), daemon=True).start()
        values = _run(supervisor, options, arguments)
    except Stopped as error:
        values = {"outcome": error.outcome, "message": error.message}
    with contextlib.suppress(OSError):  # where nobody listens
        lines.say("end", **values)
    return str(values["outcome"])


def _run(
    supervisor: Supervisor, options: argparse.Namespace, arguments: List[str]
) -> Dict[str, object]:
    if options.command == "describe" and options.only is None:
        from edgeship.device_tests.board.describe import describe

        return describe(supervisor, options)
    if options.command == "self-test":
        from edgeship.device_tests.board.self_test import self_test

        return self_test(supervisor, options)
    ended = supervisor.run(arguments, deadline_s=getattr(options, "deadline", None))
    return dict(ended.values, worker_peak_bytes=ended.peak_bytes)


def _end_with_stdin(supervisor: Supervisor) -> None:
    """Where stdin ends, nobody listens any more: a connection that was cut leaves nothing here."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:  # closed from the start
        pass
    supervisor.end("stdin ended: nobody listens any more")


def _end_on_signals(supervisor: Supervisor) -> None:
    def heard(number: int, _frame: Optional[FrameType]) -> None:
        supervisor.end(f"the supervisor got {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, heard)
    sys.stdout.flush()
