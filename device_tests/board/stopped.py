"""Stopped: how a job on a board can end, and the error that ends it early."""

from typing import Dict, Tuple

EXIT_STATUSES: Dict[str, int] = {
    "ok": 0,
    "mismatch": 6,
    "damaged": 9,
    "no-runtime": 8,
    "no-numpy": 8,
    "wrong-numpy": 8,
    "refused": 9,
    "illegal-instruction": 9,
    "out-of-memory": 6,
    "killed": 6,
    "failed": 1,
    "timeout": 8,
}
"""Exit status by outcome: those of edgeship's commands where they mean the same."""

_MEMORY_WORDS: Tuple[str, ...] = (
    "std::bad_alloc",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "failed to allocate",
    "Cannot allocate memory",
    "MemoryError",
    "unable to allocate",
    "Unable to allocate",
    "out of memory",
)
"""What C++'s library, onnxruntime, llama.cpp, the C library, Python and numpy write."""


class Stopped(Exception):
    """A job that ends now, with an outcome other than "ok" and one clause that says why."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        assert outcome in EXIT_STATUSES, outcome
        self.outcome = outcome
        self.message = message


def says_out_of_memory(text: str) -> bool:
    """Whether an error's text means that memory could not be had."""
    return any(words in text for words in _MEMORY_WORDS)


def first_line(text: str) -> str:
    """The first line that says something, at most 300 characters."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return next((line for line in lines if line), "no message")[:300]
