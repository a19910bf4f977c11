"""Worker: the process that touches a runtime, and may die of it."""

import ctypes
import importlib
import os
import signal
import sys
import traceback
from typing import Dict, List, Tuple

from edgeship.device_tests.board.arguments import parse
from edgeship.device_tests.board.lines import Lines, take_stdout
from edgeship.device_tests.board.memory import offer_to_killer
from edgeship.device_tests.board.packages import require_numpy
from edgeship.device_tests.board.stopped import Stopped, first_line, says_out_of_memory

COMMANDS: Dict[str, str] = {
    "describe": "edgeship.device_tests.board.describe",
    "smoke": "edgeship.device_tests.board.smoke",
    "bench": "edgeship.device_tests.board.bench",
}
"""Modules with a function run(options, lines), which gives the keys of the last event, "outcome"
among them, or raises Stopped. "self-test" is several "smoke"s of the supervisor."""

_PR_SET_PDEATHSIG = 1
"""prctl(2), linux/prctl.h."""


def work(supervisor: int, arguments: List[str]) -> int:
    """Run one command; 0 where it could say how it ended.

    Args:
        supervisor: Its process id, with which this process ends.
        arguments: The command and its options.
    """
    end_with_parent(supervisor)
    offer_to_killer()
    lines = take_stdout()
    lines.say("end", **_ended(arguments, lines))
    return 0


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process where its parent ends, however that comes."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):  # no Linux
        return
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


def _ended(arguments: List[str], lines: Lines) -> Dict[str, object]:
    """Keys of the last event."""
    try:
        options = parse(arguments)
        if options.command != "describe":  # the others' modules import it
            require_numpy()
        module = importlib.import_module(COMMANDS[options.command])
        ended: Dict[str, object] = module.run(options, lines)
        return ended
    except Exception as error:  # whatever a vendor's library raises is an outcome here
        outcome, message = _outcome_of(error)
        if not isinstance(error, Stopped):
            traceback.print_exc()
        return {"outcome": outcome, "message": message}


def _outcome_of(error: Exception) -> Tuple[str, str]:
    if isinstance(error, Stopped):
        outcome, message = error.outcome, error.message
    else:
        last = traceback.format_exception_only(type(error), error)[-1]
        outcome, message = "failed", first_line(last)
    is_vague = outcome in ("failed", "refused")
    if isinstance(error, MemoryError) or (is_vague and says_out_of_memory(str(error))):
        outcome = "out-of-memory"
    return outcome, message
