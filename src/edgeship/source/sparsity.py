"""Sparsity: signs of pruning in masks, exact zeros and widths."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from edgeship.source.architecture import is_weight
from edgeship.source.tensor_facts import TensorFacts
from edgeship.source.tensor_name import (
    MASK,
    ORIGINAL,
    BlockGroup,
    is_embedding,
    role_of,
    shown_name,
    split_at_index,
)
from edgeship.source.tensor_source import TensorEntry

SPARSE_SHARE: Final = 0.05
"""Share of exact zeros from which a weight counts as sparse: a choice. Training alone leaves hardly
any: 5 in 100 weights that are exactly zero were set to it."""
_WIDTH_STEP: Final = 8
"""Designed widths are mostly multiples of it (`make_divisible` in the code of arXiv:1801.04381)."""
_SHOWN: Final = 6


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What zeros or widths tell.

    Attributes:
        are_strong: Whether hardly anything but pruning leaves them.
        clauses: A clause each.
    """

    are_strong: bool
    clauses: tuple[str, ...]


def leftovers_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names of weights that pruning split into `<name>_orig` and `<name>_mask`."""
    known = set(names)
    stems = [name.removesuffix(ORIGINAL) for name in known if name.endswith(ORIGINAL)]
    return tuple(sorted(stem for stem in stems if f"{stem}{MASK}" in known))


def mask_signs(facts: Sequence[TensorFacts]) -> tuple[str, ...]:
    """At most one clause: masks that were never made permanent, and what they switch off."""
    by_name = {item.entry.name: item for item in facts}
    stems = leftovers_of(by_name)
    if not stems:
        return ()
    masks = [by_name[f"{stem}{MASK}"] for stem in stems]
    total = sum(mask.entry.elements for mask in masks)
    share = sum(mask.zeros for mask in masks) / total if total else 0.0
    which = f"{shown_name(stems[0])}{ORIGINAL} and {MASK}"
    rest = f", and {len(stems) - 1} more" if len(stems) > 1 else ""
    return (f"masks were left in ({which}{rest}), which switch off {text_from_share(share)}",)


def zero_signs(facts: Sequence[TensorFacts]) -> Signs:
    """Weights with many exact zeros, and channels that are all zero.

    A few channels are a weak sign: weight decay and half precision can make them zero too.
    """
    weights = [item for item in facts if is_weight(item.entry)]
    sparse = [item for item in weights if item.zero_share >= SPARSE_SHARE]
    signs = []
    if sparse:
        share = sum(item.zeros for item in weights) / sum(item.entry.elements for item in weights)
        where = f"in {len(sparse)} of {len(weights)} weights"
        signs.append(f"{text_from_share(share)} exact zeros, {where}")
    are_strong = bool(sparse)
    layers = [item for item in weights if not is_embedding(item.entry.name)]
    for axis, side in enumerate(("output", "input")):
        counts = [(item.zero_inputs if axis else item.zero_outputs) or 0 for item in layers]
        if any(counts):
            total = sum(item.entry.shape[axis] for item in layers)
            are_strong = are_strong or sum(counts) >= SPARSE_SHARE * total
            touched = sum(count > 0 for count in counts)
            where = f"in {touched} of {len(layers)} weights"
            signs.append(f"{sum(counts)} of {total} {side} channels are all zero, {where}")
    return Signs(are_strong=are_strong, clauses=tuple(signs))


def width_signs(entries: Iterable[TensorEntry], groups: Sequence[BlockGroup]) -> Signs:
    """What the output widths tell, among siblings and against multiples of 8.

    A design may be the reason of either; they are strong where siblings get wider and narrower
    again, and to widths that are no multiples of 8.
    """
    weights = [entry for entry in entries if is_weight(entry) and not is_embedding(entry.name)]
    siblings = _siblings(weights, groups)
    unequal = {role: widths for role, widths in siblings.items() if len(set(widths)) > 1}
    signs = []
    if unequal:
        role = next((role for role in unequal if _turns(unequal[role])), next(iter(unequal)))
        count = f"{len(unequal)} of {len(siblings)} roles"
        shown = _listed(unequal[role])
        signs.append(f"siblings differ in width in {count}: {shown_name(role)} has {shown}")
    taken = {entry.shape[1] for entry in weights}
    inner = [entry.shape[0] for entry in weights if entry.shape[0] in taken]
    odd = Counter(width for width in inner if width % _WIDTH_STEP and width > 1)
    if odd:
        count = f"{odd.total()} of {len(inner)} inner widths"
        signs.append(f"{count} are no multiples of {_WIDTH_STEP}: {_listed(sorted(odd))}")
    is_irregular = bool(odd) and any(_turns(widths) for widths in unequal.values())
    return Signs(are_strong=is_irregular, clauses=tuple(signs))


def text_from_share(share: float) -> str:
    """A share for people, with a decimal where it would else be 0 to 9 or 100."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if 0.1 <= share < 0.995 or share == 1 else f"{100 * share:.1f} %"


def _siblings(weights: Iterable[TensorEntry], groups: Sequence[BlockGroup]) -> dict[str, list[int]]:
    """Output widths by role, ordered by the index of their block."""
    prefixes = {group.prefix for group in groups}
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry in weights:
        split = split_at_index(entry.name)
        if split is not None and split[0] in prefixes:
            found[role_of(entry.name)].append((split[1], entry.shape[0]))
    return {role: [width for _, width in sorted(pairs)] for role, pairs in found.items()}


def _turns(widths: Sequence[int]) -> bool:
    """Whether they rise and fall: stages of a net only widen, or only narrow."""
    steps = [after - before for before, after in pairwise(widths)]
    return any(step > 0 for step in steps) and any(step < 0 for step in steps)


def _listed(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths[:_SHOWN])) + (", ..." if len(widths) > _SHOWN else "")
