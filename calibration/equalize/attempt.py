"""Attempt: one pass applied to a program, made canonical and proven against the program before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.calibration.equalize.rewrite import NothingToRewrite
from edgeship.source.difference import relative_difference

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Rewrite, Samples, Use

TOLERANCE: Final = 1e-4
"""Largest difference of float outputs, relative to the output's largest magnitude, that a pass
which keeps the function may leave. Rotating MiniLM leaves 6e-7, scaling ResNet-20 4e-6."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A rewritten program.

    Attributes:
        program: Canonical.
        lines: What was changed.
        difference: Of float outputs from the program before, relative, the largest of the samples.
    """

    program: FloatProgram
    lines: tuple[str, ...]
    difference: float


def attempt(
    rewrite: Rewrite,
    program: FloatProgram,
    samples: Samples,
    use: Use,
    *,
    proofs: Samples | None = None,
) -> Attempt:
    """Apply a pass to a copy of `program`, which stays as it is.

    Args:
        rewrite: The pass.
        program: What it is applied to.
        samples: What it learns from.
        use: What the program becomes.
        proofs: What both programs are compared on; `samples` where there are no others.

    Raises:
        NothingToRewrite: The pass does not apply, or did not keep the function.
        ExportFailed: What it made cannot be exported.
    """
    edited = program.copy()
    lines = tuple(rewrite.apply(edited, samples, use))
    made = edited.canonical()
    difference = max(_difference(program, made, proofs or samples))
    if rewrite.is_exact and not difference <= TOLERANCE:
        message = f"it moved a float output by {difference:.1g}, more than {TOLERANCE:g}"
        raise NothingToRewrite(message)
    return Attempt(program=made, lines=lines, difference=difference)


def _difference(before: FloatProgram, after: FloatProgram, samples: Samples) -> list[float]:
    found = []
    for inputs in samples:
        expected, outputs = before.run(inputs), after.run(inputs)
        found += [relative_difference(expected[name], outputs[name]) for name in expected]
    return found
