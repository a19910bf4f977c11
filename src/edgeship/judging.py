"""Judging: one artifact against a budget, by the evidence in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgeship.accuracy import judge_accuracy, judge_worst_class
from edgeship.artifact import Manifest
from edgeship.budget import Budget, Judgement
from edgeship.limits import judge_boards, judge_latency, judge_memory, judge_size

_SAME_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


def judge_artifact(
    manifest: Manifest,
    budget: Budget,
    *,
    metric: str,
    packages: Mapping[str, str] = _SAME_NAMES,
    is_companion: bool = False,
) -> list[Judgement]:
    """Hold one artifact against a budget, by what was measured in each of its runtimes.

    Args:
        manifest: With the evidence to judge by.
        budget: The target's.
        metric: The project's evaluation metric: top1, agreement or cosine.
        packages: What evidence calls the runtimes of `requires.any_of`, by their names there,
            where it is something else.
        is_companion: True for the fp32 file that is built beside an int8 one only to compare with:
            the limits on what ships (size, latency, memory) are then not its own.
    """
    judgements = list(judge_accuracy(manifest, budget, metric, packages))
    judgements += judge_worst_class(manifest, budget)
    judgements += judge_boards(manifest.evidence)
    if not is_companion:
        judgements += judge_size(manifest, budget)
        judgements += judge_latency(manifest, budget)
        judgements += judge_memory(manifest, budget)
    return judgements
