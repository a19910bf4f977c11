"""Ending: what the way in which a worker ended means."""

import os
import signal
from typing import Optional, Tuple

from edgeship.device_tests.board.stopped import first_line, says_out_of_memory

_SENTENCES = {
    "SIGILL": "an instruction that this CPU does not have",
    "SIGSEGV": "an access to memory that is not its own",
    "SIGBUS": "an access to memory that is not there",
    "SIGABRT": "it gave up by itself",
    "SIGFPE": "an arithmetic error",
}


def outcome_of(status: int, *, stderr: str, was_out_of_memory: bool) -> Optional[Tuple[str, str]]:
    """Outcome and a clause for a worker that did not say its own; None where it just left.

    Args:
        status: As os.waitpid gives it.
        stderr: The last that it said.
        was_out_of_memory: Whether the kernel killed for want of memory meanwhile, or had none.
    """
    if not os.WIFSIGNALED(status):
        return None
    name = _name(os.WTERMSIG(status))
    if name == "SIGILL":
        return "illegal-instruction", "SIGILL: " + _SENTENCES[name]
    if name == "SIGKILL" and was_out_of_memory:
        return "out-of-memory", "the kernel killed it for want of memory (SIGKILL)"
    if name in ("SIGABRT", "SIGSEGV") and says_out_of_memory(stderr):
        return "out-of-memory", f"memory could not be had ({name}): {_memory_line(stderr)}"
    sentence = _SENTENCES.get(name, "a signal from outside")
    return "killed", f"{name}: {sentence}"


def _memory_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if says_out_of_memory(line)]
    return first_line(lines[-1])


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
