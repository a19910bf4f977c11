"""Delegates: what XNNPACK leaves to the runtime's own kernels, and what that costs on this host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeship.evaluate.operator_times import time_operators
from edgeship.evaluate.speed import Clock
from edgeship.runtimes.delegation import Delegation, examine_delegation


@dataclass(frozen=True, kw_only=True)
class DelegateCheck:
    """How XNNPACK shares a .tflite file with the runtime's own kernels, and the latters' time.

    Attributes:
        delegation: Which operators these are: the same each time, for one version of the runtime
            on one kind of CPU.
        outside_us: CPU time of all operators of a name outside, on one thread of this host, the
            dearest first; each was timed in a file of its own.
        whole_us: CPU time of the file.
    """

    delegation: Delegation
    outside_us: Mapping[str, float]
    whole_us: float

    @property
    def share(self) -> float:
        """Of the file's CPU time, what runs outside: 0..1."""
        return min(sum(self.outside_us.values()) / self.whole_us, 1.0) if self.whole_us else 0.0

    @property
    def line(self) -> str:
        """`XNNPACK takes it in 14 parts; 13 HARD_SWISH run outside, 79 % of the time on this host`.

        It says where it was measured, and is no measurement of a board.
        """
        return delegate_line(self.delegation, self.share, tuple(self.outside_us))


def check_delegates(file: Path, *, clock: Clock | None = None) -> DelegateCheck:
    """Load a .tflite file in LiteRT, and time what XNNPACK leaves outside.

    Raises:
        ExportFailed: LiteRT does not load or does not run it.
    """
    delegation = examine_delegation(file)
    times = time_operators(file, delegation.places, clock=clock)
    outside = dict.fromkeys(delegation.outside, 0.0)
    for place, time_us in times.by_place.items():
        outside[times.names[place]] += time_us
    dearest = sorted(outside.items(), key=lambda item: -item[1])
    return DelegateCheck(delegation=delegation, outside_us=dict(dearest), whole_us=times.whole_us)


def delegate_line(delegation: Delegation, share: float, order: tuple[str, ...] = ()) -> str:
    """What a check says, for people.

    Args:
        delegation: Of the file.
        share: Of its time on this host, what runs outside.
        order: Names of operators outside, as they are to be listed; the others follow.
    """
    parts = delegation.partitions
    taken = {0: "none of it", 1: "it in 1 part"}.get(parts, f"it in {parts} parts")
    if not delegation.outside:
        return "XNNPACK takes it whole"
    names = dict.fromkeys((*order, *delegation.outside))
    texts = [f"{delegation.outside[name]} {name}" for name in names]
    listed = " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    verb = "runs" if sum(delegation.outside.values()) == 1 else "run"
    return (
        f"XNNPACK takes {taken}; {listed} {verb} outside, {100 * share:.0f} % of the time on this "
        "host"
    )
