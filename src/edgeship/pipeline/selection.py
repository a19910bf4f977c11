"""Selection: which artifacts of a plan go to a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeship.errors import ConfigurationError, unknown_name
from edgeship.pipeline.plan import Plan, PlannedArtifact


def select_artifacts(
    plan: Plan, only: Sequence[str] | None, *, has_companions: bool = False
) -> Plan:
    """The plan with those that are named, like `tflite-int8`; with all that ship where none is.

    `has_companions` adds the fp32 files that were made to compare with.

    Raises:
        ConfigurationError: A name that is not in the plan.
    """
    names = [short_name(item) for item in plan.artifacts]
    problems = [
        unknown_name(kind="artifact", name=name, choices=sorted(set(names)), where="--only")
        for name in only or ()
        if name not in names
    ]
    if problems:
        raise ConfigurationError(*problems)
    chosen = tuple(
        item
        for item, name in zip(plan.artifacts, names, strict=True)
        if (name in only if only else has_companions or not item.is_companion)
    )
    return replace(plan, artifacts=chosen)


def short_name(item: PlannedArtifact) -> str:
    """`<format>-<precision>`."""
    return f"{item.format}-{item.recipe.precision}"
