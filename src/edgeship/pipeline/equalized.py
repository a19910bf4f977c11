"""Equalized: what became of each rewrite of a float model, as the manifest and the cache say it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeship.vocabulary import RewriteName

PROGRAM_NAME: Final = "program.pt2"
_NAME: Final = "equalize.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rewrite that was tried.

    Attributes:
        name: The rewrite; None where the model could not be made a program at all.
        is_kept: Whether the model has it from here on.
        lines: What was changed, or why it was not.
        float_difference: Of float outputs, relative to the largest magnitude.
        before_db: SQNR of the artifact's outputs without it, on a few representative samples on
            this host; None where it was not measured.
        after_db: The same with it.
        time_ratio: CPU time with it over that without it, on this host.
        is_faster: Whether that was certainly less, where it was what decided.
    """

    name: RewriteName | None
    is_kept: bool
    lines: tuple[str, ...]
    float_difference: float | None = None
    before_db: float | None = None
    after_db: float | None = None
    time_ratio: float | None = None
    is_faster: bool | None = None

    def text(self) -> str:
        """One line for people; without times, or no two builds would be the same artifact."""
        name = "" if self.name is None else f"{self.name} "
        if self.before_db is None or self.after_db is None:
            state = f"{name}{'applied' if self.is_kept else 'left out'}"
        else:
            faster = {True: ", and faster", False: ", and no faster", None: ""}[self.is_faster]
            state = (
                f"{name}{'kept' if self.is_kept else 'left out'} ({self.after_db:.1f} dB of signal "
                f"to error with it, {self.before_db:.1f} without{faster}, on this host)"
            )
        text = f"{state}: {'; '.join(self.lines)}"
        if self.is_kept and self.float_difference is not None:
            text += f"; float outputs moved by {self.float_difference:.0e}"
        return text


@dataclass(frozen=True, kw_only=True)
class Equalized:
    """All that was tried, in order."""

    steps: tuple[Step, ...] = ()

    @property
    def kept(self) -> tuple[Step, ...]:
        """What the model has."""
        return tuple(step for step in self.steps if step.is_kept)

    def notes(self) -> tuple[str, ...]:
        """Lines for the manifest: one for each that was kept, one for all the others."""
        others = [step.text() for step in self.steps if not step.is_kept]
        kept = [f"equalize: {step.text()}" for step in self.kept]
        if others and not kept:
            return (f"equalize: the model is left as it is: {'. '.join(others)}",)
        return (*kept, *(f"equalize: {text}" for text in others))

    def recipe(self) -> list[dict[str, object]]:
        """The rewrites that the model has, as the manifest's recipe says them."""
        return [
            {"equalize": str(step.name), "float_difference": _rounded(step.float_difference)}
            for step in self.kept
        ]

    def write(self, directory: Path) -> None:
        """Keep it for `read_equalized`."""
        values = [asdict(step) for step in self.steps]
        (directory / _NAME).write_text(json.dumps(values, indent=1, allow_nan=False), "utf-8")


def read_equalized(directory: Path) -> Equalized:
    """Inverse of `Equalized.write`."""
    values = json.loads((directory / _NAME).read_bytes())
    return Equalized(steps=tuple(_step_from_json(value) for value in values))


def _step_from_json(value: Mapping[str, Any]) -> Step:
    name = None if value["name"] is None else RewriteName(value["name"])
    return Step(**{**value, "name": name, "lines": tuple(value["lines"])})


def _rounded(number: float | None) -> float | None:
    """Two digits: the rest is the CPU's order of additions, and artifacts are named by this."""
    if number is None or number == 0 or not math.isfinite(number):
        return number
    return float(f"{number:.1e}")
