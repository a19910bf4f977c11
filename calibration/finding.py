"""Finding: what an audit of representative data found, and whether it may go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeship.errors import ConfigurationError, Problem

SHOWN: Final = 3
"""Names that a message lists before it counts the rest."""


class Severity(StrEnum):
    """REFUSE: no artifact may be made of it; WARN: it is, and the artifact says so."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that an audit found."""

    severity: Severity
    problem: Problem

    def __str__(self) -> str:
        """As its problem."""
        return str(self.problem)


def notes_from_findings(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The warnings, one line each; nothing of it depends on paths, clocks or chance.

    Raises:
        ConfigurationError: With the problems of all findings that refuse.
    """
    known = tuple(findings)
    refused = [item.problem for item in known if item.severity is Severity.REFUSE]
    if refused:
        raise ConfigurationError(*refused)
    return tuple(str(item) for item in known)


def list_names(names: Sequence[str]) -> str:
    """The first three, and how many more there are: `a, b, c and 4 more`."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def place_of(tensor: str, modules: Mapping[str, str]) -> str:
    """`relu_3 in layer1.0`; the tensor alone where its module is unknown or the root."""
    module = modules.get(tensor)
    return f"{tensor} in {module}" if module else tensor
