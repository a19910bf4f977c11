"""Rewrite: what a pass is, and the passes that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from edgeship.targets import Target
from edgeship.vocabulary import Format, RewriteName

if TYPE_CHECKING:
    import numpy as np

    from edgeship.calibration.equalize.program import FloatProgram


class NothingToRewrite(Exception):
    """A pass finds nothing here that it could make better; the message says why, in one clause."""


class Gain(StrEnum):
    """What a pass is for, and so what decides whether it is kept."""

    ACCURACY = "accuracy"
    SPEED = "speed"


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a rewritten program will become.

    Attributes:
        format: Of the artifact, whose precision has integers.
        target: Its board: activation types and runtimes are read from it.
        is_symmetric: Whether activations have a zero point of 0.
        kept_modules: Globs of the torch modules that the recipe keeps in float.
    """

    format: Format
    target: Target
    is_symmetric: bool
    kept_modules: tuple[str, ...] = ()


Samples = Sequence["Mapping[str, np.ndarray]"]
"""Representative samples: inputs of the float model by name."""


class Rewrite(Protocol):
    """A pass: it changes a program so that its integers hold better, and not its function."""

    @property
    def name(self) -> RewriteName:
        """In `equalize = [...]`."""
        ...

    @property
    def gain(self) -> Gain:
        """What decides whether "auto" keeps it."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether it keeps the function up to rounding, so that it is dropped where it does not.

        Bias correction alone does not: it moves biases by what weights lose in rounding.
        """
        ...

    def problems(self, use: Use) -> Iterable[str]:
        """Why it cannot be of use for what the program becomes, before anything slow."""
        ...

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        """Edit `program`, a copy, in place; the caller makes it canonical and proves it.

        Returns:
            Lines for people: what was changed, with numbers.

        Raises:
            NothingToRewrite: Nothing was changed, and why.
        """
        ...


REWRITES: Final[Mapping[RewriteName, str]] = {
    RewriteName.ROTATE: "edgeship.calibration.equalize.rotate.rotation:Rotation",
    RewriteName.SMOOTHQUANT: "edgeship.calibration.equalize.smoothquant.smoothing:SmoothQuant",
    RewriteName.CROSS_LAYER: "edgeship.calibration.equalize.cross_layer.equalization:CrossLayer",
    RewriteName.HARD_SWISH: "edgeship.calibration.equalize.hard_swish:HardSwish",
    RewriteName.BIAS_CORRECTION: "edgeship.calibration.equalize.bias_correction:BiasCorrection",
}
"""In the order in which they are tried: structure first, biases last."""


def load_rewrite(name: RewriteName) -> Rewrite:
    """A pass by its name; its vendor packages are imported now."""
    module, _, attribute = REWRITES[name].partition(":")
    rewrite: Rewrite = getattr(import_module(module), attribute)()
    return rewrite
