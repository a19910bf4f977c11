"""Tells the story of a command on stderr: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgeship.story import Progress, Silence, Story, ignore_progress


class PlainStory:
    """A line when a stage begins, and one when it is done."""

    def say(self, line: str) -> None:
        """See `Story.say`."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    @contextmanager
    def stage(self, name: str, subject: str) -> Iterator[Progress]:
        """See `Story.stage`."""
        self.say(f"{name:<10}{subject} ...")
        start = time.monotonic()
        yield ignore_progress
        self.say(f"{name:<10}{subject} done in {time.monotonic() - start:.1f} s")


class LiveStory:
    """A progress bar while a stage works, a line when it is done."""

    def say(self, line: str) -> None:
        """See `Story.say`."""
        sys.stderr.write(f"{line}\n")

    @contextmanager
    def stage(self, name: str, subject: str) -> Iterator[Progress]:
        """See `Story.stage`."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        start = time.monotonic()
        bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        with bar:
            task = bar.add_task(f"{name:<10}{subject}", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self.say(f"{name:<10}{subject} {time.monotonic() - start:.1f} s")


def make_story(*, is_quiet: bool) -> Story:
    """The story that suits where stderr goes."""
    if is_quiet:
        return Silence()
    return LiveStory() if sys.stderr.isatty() else PlainStory()
