"""Heard: the events of one job on a board, until it says how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from edgeship.device_tests.transports.protocol import ConnectionFailed, Ended
from edgeship.errors import Problem
from edgeship.latency import MemoryUse

_STDERR_LINES: Final = 20
"""Kept for people; a choice."""


class Heard:
    """Takes the lines of a job as they come; the rest is known after `close`.

    Attributes:
        last: Keys of the last event.
        stderr: The last lines that were written there.
    """

    def __init__(self, *, where: str) -> None:
        self._where = where
        self._events: list[Mapping[str, Any]] = []
        self._strange: str | None = None
        self.last: Mapping[str, Any] = {}
        self.stderr = ""

    def line(self, text: str) -> None:
        """One line of stdout, without its end."""
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            self._events.append(event)
        elif self._strange is None:
            self._strange = text

    def close(self, ended: Ended) -> None:
        """The job is over.

        Raises:
            ConnectionFailed: It did not say how it ended, or said more than events.
        """
        lines = ended.stderr.decode("utf-8", "replace").splitlines()
        self.stderr = "\n".join(lines[-_STDERR_LINES:])
        if self._strange is not None:
            raise self.unreadable(found=repr(self._strange[:200]))
        if not self._events or self._events[-1]["event"] != "end":
            how = f"signal {ended.signal}" if ended.signal else f"status {ended.status}"
            said = f"; {lines[-1][:200]}" if lines else ""
            raise self.unreadable(found=f"no last line, {how}{said}")
        self.last = self._events[-1]
        if not isinstance(self.last.get("outcome"), str):
            raise self.unreadable(found="a last line without an outcome")

    @property
    def outcome(self) -> str:
        """How it ended: "ok" or another."""
        return str(self.last["outcome"])

    @property
    def message(self) -> str | None:
        """Why, where it is not "ok"."""
        message = self.last.get("message")
        return None if message is None else str(message)

    @property
    def memory(self) -> MemoryUse | None:
        """Of the process that ran the model; None where nothing was said of it."""
        for event in self.all("memory"):
            peak, imported = event.get("peak_bytes"), event.get("imported_bytes")
            if isinstance(peak, int) and isinstance(imported, int):
                return MemoryUse(peak_bytes=peak, imported_bytes=imported)
        return None

    @property
    def runtime(self) -> dict[str, str]:
        """Package and version of what ran it; empty where it did not come so far."""
        for event in self.all("start"):
            version = event.get("version")
            return {"runtime": str(event.get("package")), "version": str(version or "unknown")}
        return {}

    def all(self, event: str) -> list[Mapping[str, Any]]:
        """Every event of a kind, in order."""
        return [item for item in self._events if item["event"] == event]

    def one(self, event: str) -> Mapping[str, Any]:
        """The first event of a kind; raises KeyError where there is none."""
        for item in self.all(event):
            return item
        raise KeyError(event)

    def unreadable(self, *, found: str) -> ConnectionFailed:
        """What was heard is no result."""
        problem = Problem(
            where=self._where,
            what="the board did not say how it ended in a way that can be read",
            found=found,
            remedy="look at what it wrote, and run again",
        )
        return ConnectionFailed(problem)
