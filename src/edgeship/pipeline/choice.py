"""Choice: which of two files, without and with importance, is closer to the float model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeship.pipeline.data import Data, ProjectData
from edgeship.story import Progress

_NAME: Final = "choice.json"
_SCORED: Final = 5
"""Of the representative texts, each fifth is kept to choose by, and the others make importance."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How far a file is from the float model: the less, the better; `count` of what, and `unit`."""

    value: float
    count: int
    measure: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Both losses."""

    plain: Loss
    weighted: Loss

    @property
    def takes_importance(self) -> bool:
        """The file without, where both are equal."""
        return self.weighted.value < self.plain.value

    def note(self) -> str:
        """A line for people."""
        taken = "taken" if self.takes_importance else "not taken"
        return (
            f"importance matrix {taken}: {self.plain.measure} {self.weighted.value:.5f} with it, "
            f"{self.plain.value:.5f} without ({self.plain.count} {self.plain.unit} of "
            "representative text that it was not made of)"
        )


def importance_texts(data: ProjectData) -> tuple[str, ...]:
    """The representative texts that importance is made of."""
    texts = data.texts(Data.CALIBRATION)
    return tuple(text for index, text in enumerate(texts) if index % _SCORED != _SCORED - 1)


def scored_texts(data: ProjectData) -> tuple[str, ...]:
    """The representative texts that the choice is made by."""
    return data.texts(Data.CALIBRATION)[_SCORED - 1 :: _SCORED]


def choose(
    plain: Callable[[Progress], Loss],
    weighted: Callable[[Progress], Loss],
    directory: Path,
    progress: Progress,
) -> None:
    """Measure two files, one after the other -> Choice."""
    first = plain(lambda done, total: progress(done, 2 * total))
    second = weighted(lambda done, total: progress(done + total, 2 * total))
    value = {"plain": asdict(first), "weighted": asdict(second)}
    (directory / _NAME).write_text(json.dumps(value), encoding="utf-8")


def read_choice(directory: Path) -> Choice:
    """What `choose` wrote."""
    value = json.loads((directory / _NAME).read_bytes())
    return Choice(plain=Loss(**value["plain"]), weighted=Loss(**value["weighted"]))
