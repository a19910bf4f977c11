"""Substitution: a matrix whose rows no block of the wanted kind divides gets another kind.

llama.cpp does so without a word in the file: a name like Q4_K_M then stands for something larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.kinds import Kind

if TYPE_CHECKING:
    from edgeship.exporters.gguf.mixture import Assignment

_SMALLER_BLOCKS: Final = {
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
    Kind.IQ4_XS: Kind.IQ4_NL,
}
"""For kinds with blocks of 256 weights, the one with blocks of 32 that takes their place.
Source: src/llama-quant.cpp of llama.cpp 0.5.0, `tensor_type_fallback`."""
_NAMED: Final = 3
"""Tensors that a problem names; of the others it gives the number."""


@dataclass(frozen=True, kw_only=True)
class Substitution:
    """A tensor that is not of the kind that its file type asks for.

    Attributes:
        tensor: Its name in the file.
        wanted: Kind that it would have if its rows were made of whole blocks.
        got: Kind that it has.
        columns: Length of its rows.
        width: The next length that would avoid it: a multiple of 256 or 32.
    """

    tensor: str
    wanted: Kind
    got: Kind
    columns: int
    width: int


def fitting_kind(wanted: Kind, columns: int) -> Kind:
    """What llama.cpp gives to rows of `columns` weights for which `wanted` is asked.

    F16 where not even blocks of 32 weights divide them.
    """
    if wanted.fits(columns):
        return wanted
    smaller = _SMALLER_BLOCKS.get(wanted, wanted)
    return smaller if smaller.fits(columns) else Kind.F16


def substitution_of(tensor: str, wanted: Kind, columns: int) -> Substitution | None:
    """What becomes of `wanted` in rows of `columns` weights; None if it stays."""
    got = fitting_kind(wanted, columns)
    if got is wanted:
        return None
    width = -(-columns // wanted.block) * wanted.block
    return Substitution(tensor=tensor, wanted=wanted, got=got, columns=columns, width=width)


def substitution_notes(assignment: Assignment) -> list[str]:
    """Lines for the manifest, the largest group first; the last one is about the whole file."""
    if not assignment.substituted:
        return [f"{assignment.bits_per_weight:.2f} bits per weight"]
    notes = [
        f"{_told(group, assignment.matrices)}; {_avoided(group[0])}"
        for group in _groups(assignment.substituted)
    ]
    whole = (
        f"all weights together: {assignment.bits_per_weight:.2f} bits per weight "
        f"instead of {assignment.nominal_bits_per_weight:.2f}"
    )
    return [*notes, whole]


def substitution_problems(assignment: Assignment, *, where: str) -> Iterator[Problem]:
    """The same as problems, one per pair of kinds and width, for who asked to be strict.

    Args:
        assignment: Of the whole file.
        where: The key of the project that asks for it, or the checkpoint.
    """
    for group in _groups(assignment.substituted):
        first = group[0]
        yield Problem(
            where=where,
            what=f"{_told(group, assignment.matrices)} ({_listed(group)})",
            expected=f"rows of a multiple of {first.wanted.block} weights",
            found=f"rows of {first.columns}",
            remedy=f"prune or pad to {_widths(first)} columns, choose a file type with blocks that "
            "divide them, or do without strict",
        )


def refuse_substitutions(assignment: Assignment, *, where: str) -> None:
    """Does nothing where every tensor has the kind that was asked for.

    Raises:
        ExportFailed: One does not.
    """
    problems = tuple(substitution_problems(assignment, where=where))
    if problems:
        raise ExportFailed(*problems)


def _groups(substituted: Sequence[Substitution]) -> list[list[Substitution]]:
    def key(one: Substitution) -> tuple[str, str, int]:
        return one.wanted, one.got, one.columns

    groups = [list(group) for _, group in groupby(sorted(substituted, key=key), key=key)]
    return sorted(groups, key=len, reverse=True)


def _told(group: Sequence[Substitution], matrices: int) -> str:
    first = group[0]
    verb = "is" if len(group) == 1 else "are"
    return (
        f"{len(group)} of {matrices} matrices {verb} {first.got} instead of {first.wanted}, since "
        f"{first.columns} columns are no multiple of {first.wanted.block}: "
        f"{first.got.bits_per_weight:g} bits per weight instead of {first.wanted.bits_per_weight:g}"
    )


def _avoided(one: Substitution) -> str:
    return f"a width of {_widths(one)} would avoid it"


def _widths(one: Substitution) -> str:
    """The multiples above and below: who pads takes the first, who prunes the second."""
    narrower = one.width - one.wanted.block
    return f"{one.width} or {narrower}" if narrower else f"{one.width}"


def _listed(group: Sequence[Substitution]) -> str:
    names = ", ".join(one.tensor for one in group[:_NAMED])
    more = len(group) - _NAMED
    return f"{names} and {more} more" if more > 0 else names
