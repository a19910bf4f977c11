"""What can go wrong, as a tree, each class with the exit code of the command that meets it.

    EdgeshipError
    ├── ConfigurationError      2   the project, the arguments or the data are wrong
    │   └── UnknownName         2   a name that is not in its closed set
    ├── ExportFailed            3   this export cannot be done
    ├── RequirementMissing      8   a toolchain, device or measurement that is required is absent
    └── IntegrityRefused        9   bytes that are not what they claim to be, or would run code

A bug of ours is none of these: it keeps its traceback and exits 1. Verdicts are not errors; their
exit codes (4, 5, 8) come from `edgeship.budget`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every command; of several that apply, the lowest failing one wins."""

    OK = 0
    INTERNAL = 1
    CONFIGURATION = 2
    EXPORT_FAILED = 3
    ACCURACY = 4
    BUDGET = 5
    DEVICE_MISMATCH = 6
    MEASUREMENT_INVALID = 7
    MISSING = 8
    INTEGRITY = 9
    INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, in the four parts that a person needs to act on it.

    Attributes:
        where: The file and key, sample, tensor or command that is wrong.
        what: What is wrong with it, in one clause.
        expected: What would have been right, where that can be said.
        found: What is there instead, where that can be said.
        remedy: What to do now, as an imperative.
    """

    where: str
    what: str
    remedy: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        """One line: `where: what: expected ..., found ...; remedy`."""
        sides = [
            f"{name} {value}"
            for name, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        contrast = f": {', '.join(sides)}" if sides else ""
        return f"{self.where}: {self.what}{contrast}; {self.remedy}"

    def to_json(self) -> dict[str, str]:
        """The parts that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class EdgeshipError(Exception):
    """Root of everything that edgeship refuses; carries one or more problems."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems: tuple[Problem, ...] = problems


class ConfigurationError(EdgeshipError):
    """The project file, the arguments or the data that they name are wrong."""

    exit_code = ExitCode.CONFIGURATION


class UnknownName(ConfigurationError):
    """A name that is not in its closed set; says which ones are, the closest first."""

    def __init__(self, *, kind: str, name: str, choices: Iterable[str], where: str) -> None:
        self.kind = kind
        self.name = name
        self.choices = tuple(choices)
        super().__init__(unknown_name(kind=kind, name=name, choices=self.choices, where=where))


class ExportFailed(EdgeshipError):
    """This export cannot be done; nothing of it was installed."""

    exit_code = ExitCode.EXPORT_FAILED


class RequirementMissing(EdgeshipError):
    """A toolchain, a device or a measurement that is required is absent."""

    exit_code = ExitCode.MISSING


class IntegrityRefused(EdgeshipError):
    """Bytes that are not what they claim to be, or that would run code when loaded."""

    exit_code = ExitCode.INTEGRITY


def unknown_name(*, kind: str, name: str, choices: Sequence[str], where: str) -> Problem:
    """The problem of a name outside of its closed set, with the closest ones as remedy."""
    close = closest_names(name, choices)
    remedy = f"did you mean {str(close[0])!r}?" if close else "use one of these"
    return Problem(
        where=where,
        what=f"unknown {kind} {name!r}",
        expected=", ".join(choices) or f"no {kind} at all",
        remedy=remedy,
    )


def closest_names(name: str, choices: Iterable[str]) -> list[str]:
    """Up to three of `choices` that look like `name`, the closest first (difflib, ratio >= 0.6)."""
    return difflib.get_close_matches(name, list(choices), n=3)
