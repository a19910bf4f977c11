"""Stopped: how the work of a kit can end, and the error that ends a part of it early."""

from typing import Dict

EXIT_STATUSES: Dict[str, int] = {
    "ok": 0,
    "usage": 2,
    "build-failed": 6,
    "out-of-memory": 6,
    "killed": 6,
    "mismatch": 6,
    "measurement-failed": 7,
    "no-tensorrt": 8,
    "no-numpy": 8,
    "busy": 8,
    "timeout": 8,
    "damaged": 9,
    "incompatible": 9,
    "refused": 9,
    "foreign": 9,
    "failed": 1,
    "interrupted": 130,
}
"""Exit status by outcome: those of edgeship's commands where they mean the same."""


class Stopped(Exception):
    """Work that ends now, with an outcome other than "ok" and one sentence that says why."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        assert outcome in EXIT_STATUSES, outcome
        self.outcome = outcome
        self.message = message


def first_line(text: str) -> str:
    """The first line that says something, at most 300 characters."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return next((line for line in lines if line), "no message")[:300]
