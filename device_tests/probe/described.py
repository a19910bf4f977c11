"""Described: what the program that runs on boards says of Python, numpy and runtimes there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeship.targets.board_facts import FoundRuntime

COMMAND: Final = "describe"


@dataclass(frozen=True, kw_only=True)
class Described:
    """Of the events "python", "runtime" and "end"; without Python all is None or empty.

    Attributes:
        glibc: As Python sees it, where nothing else on the board says it.
        notes: What went wrong, in one clause each.
    """

    python: str | None = None
    numpy: str | None = None
    glibc: str | None = None
    runtimes: tuple[FoundRuntime, ...] = ()
    notes: tuple[str, ...] = ()


def described_from_lines(lines: Iterable[str]) -> Described:
    """Read JSON lines; lines of others, such as warnings of a runtime, are left out.

    Without an event "end" of outcome "ok" what was said until then still holds, each event being
    a whole; a note says that there may be more.
    """
    events = [event for line in lines if (event := _event(line)) is not None]
    python: Mapping[str, Any] = {}
    runtimes, notes, outcome = [], [], None
    for event in events:
        match event["event"]:
            case "python":
                python = event
            case "runtime":
                runtimes.append(_runtime(event))
            case "end":
                outcome = _text(event, "outcome")
            case _:
                pass
    if outcome != "ok":
        notes.append(f"the search for runtimes ended early ({outcome or 'no last line'})")
    if problem := _text(python, "problem"):
        notes.append(problem)
    return Described(
        python=_text(python, "version"),
        numpy=_text(python, "numpy"),
        glibc=_text(python, "glibc"),
        runtimes=tuple(found for found in runtimes if found is not None),
        notes=tuple(notes),
    )


def not_described(reason: str) -> Described:
    """Nothing is known of Python and runtimes there."""
    return Described(notes=(f"runtimes were not looked for: {reason}",))


def _event(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("event"), str) else None


def _runtime(event: Mapping[str, Any]) -> FoundRuntime | None:
    name, kind = _text(event, "name"), _text(event, "kind")
    if name is None or kind is None:
        return None
    return FoundRuntime(
        name=name,
        version=_text(event, "version"),
        kind=kind,
        path=_text(event, "path"),
        problem=_text(event, "problem"),
    )


def _text(event: Mapping[str, Any], key: str) -> str | None:
    value = event.get(key)
    return value if isinstance(value, str) and value else None
