"""Tokens: rewrites for tokens so unequal that integers with one scale hold only the largest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edgeship.calibration.equalize.rotate.leading import (
    leading_tokens,
    part_between,
    split_part,
)
from edgeship.calibration.equalize.rotate.observed import observe
from edgeship.calibration.equalize.rotate.operators import shape
from edgeship.calibration.equalize.rotate.rms import write_first_pass
from edgeship.calibration.equalize.rotate.two_pass import best_pass

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples
    from edgeship.calibration.equalize.rotate.rms import Rms

_SAMPLES: Final = 16
"""MiniLM's first token was as long in each of 16 texts, within 1 % (measured)."""
_BYTES: Final = 2**28
"""For what is observed, a choice: MiniLM's norms need 2.5 MB for a text of 128 tokens."""
_FLOAT_BYTES: Final = 4


def bring_tokens_together(
    program: FloatProgram, norms: Sequence[Rms], samples: Samples
) -> Iterator[str]:
    """Compute leading tokens apart, and norm in two passes, where samples show a need.

    Args:
        program: Changed; what it computes is not.
        norms: All of it that may change, in order.
        samples: To observe.

    Yields:
        Lines for people.
    """
    program.graph.eliminate_dead_code()
    sources = [norm.source for norm in norms]
    each = sum(math.prod(shape(node)) for node in sources) * _FLOAT_BYTES
    seen = observe(program, samples[: max(1, min(_SAMPLES, _BYTES // each))], sources)
    outputs = {norm.output for norm in norms}
    apart, saved = [], []
    for norm in norms:
        values = seen[norm.source]
        found = leading_tokens(values)
        if found is not None and part_between(norm, outputs) is None:
            found = None
        first = best_pass(values if found is None else values[..., found.count :, :], norm.epsilon)
        if first is not None:
            write_first_pass(program, norm, first.constant)
            saved.append(first.saved)
        part = part_between(norm, outputs)  # with the first pass
        if found is not None and part is not None:
            outputs.remove(norm.output)
            outputs.add(split_part(program, part, found.count))
            apart.append(found)
    if apart:
        times = [item.ratio for item in apart]
        most = max(item.count for item in apart)
        yield (
            f"the first {'token' if most == 1 else f'{most} tokens'} computed apart before "
            f"{len(apart)} norms: {min(times):.1f} to {max(times):.1f} times as long as all others"
        )
    if saved:
        yield (
            f"{len(saved)} norms in two passes, which should save {min(saved):.0%} to "
            f"{max(saved):.0%} of their rounding errors"
        )
