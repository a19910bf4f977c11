"""Story: what a long command tells people while it works; the result is not part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int], None]
"""Told (done, all) as the work goes on."""


class Story(Protocol):
    """Where stages say what they do."""

    def say(self, line: str) -> None:
        """One line."""
        ...

    def stage(self, name: str, subject: str) -> AbstractContextManager[Progress]:
        """Announce a stage that is about to work; its progress goes to what this yields."""
        ...


class Silence:
    """A story that nobody hears."""

    def say(self, line: str) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str, subject: str) -> Iterator[Progress]:  # noqa: ARG002 - a Story
        """Nothing."""
        yield ignore_progress


def ignore_progress(done: int, total: int) -> None:
    """A Progress that nobody hears."""
