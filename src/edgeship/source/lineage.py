"""Lineage: a checkpoint beside the teacher that it may come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.source.architecture import find_architecture, is_parameter, is_weight
from edgeship.source.likeness import block_cosines
from edgeship.source.looks import Certainty, Look, Trait
from edgeship.source.sparsity import text_from_share
from edgeship.source.stored_checkpoint import StoredCheckpoint
from edgeship.source.tensor_name import BlockGroup, block_groups, role_of
from edgeship.source.tensor_source import TensorEntry, TensorSource

LIKE: Final = 0.5
"""Cosine from which weights count as alike, a choice: chance gives 0.004 (0.02 of 2,304 weights),
and a block that was copied and then trained on stays near 1."""


@dataclass(frozen=True, kw_only=True)
class LayerMatch:
    """A student's block and the teacher's that it corresponds to.

    Attributes:
        position: The teacher's block at the same relative depth.
        alike: The teacher's block whose weights have the largest cosine; None where no shapes are
            equal, or where that cosine is below `LIKE`.
        cosine: That largest cosine, alike or not; None where no shapes are equal.
    """

    student: str
    position: str
    alike: str | None
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class WidthMatch:
    """Shapes of one role on both sides; of several blocks, those of the first."""

    role: str
    student: tuple[int, ...]
    teacher: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a student kept of its teacher.

    Attributes:
        parameters: Of student and teacher, stored elements without buffers.
        sizes_bytes: The same in bytes, of all tensors.
        layers: One match for each of the student's blocks.
        widths: Weights of roles that both have, where their shapes differ.
        shared_roles: Number of roles of weights that both have.
        vocabulary: Of student and teacher; None where it is not known.
    """

    teacher: str
    parameters: tuple[int, int]
    sizes_bytes: tuple[int, int]
    layers: tuple[LayerMatch, ...]
    widths: tuple[WidthMatch, ...]
    shared_roles: int
    vocabulary: tuple[int | None, int | None]

    def to_json(self) -> dict[str, object]:
        """Every field, and the two ratios."""
        student, teacher = self.parameters
        return {
            "teacher": self.teacher,
            "parameters": {"student": student, "teacher": teacher},
            "parameters_ratio": student / teacher if teacher else None,
            "bytes": {"student": self.sizes_bytes[0], "teacher": self.sizes_bytes[1]},
            "bytes_ratio": self.sizes_bytes[0] / self.sizes_bytes[1],
            "layers": [
                {
                    "student": match.student,
                    "position": match.position,
                    "alike": match.alike,
                    "cosine": match.cosine,
                }
                for match in self.layers
            ],
            "widths": [
                {
                    "role": match.role,
                    "student": list(match.student),
                    "teacher": list(match.teacher),
                }
                for match in self.widths
            ],
            "shared_roles": self.shared_roles,
            "vocabulary": {"student": self.vocabulary[0], "teacher": self.vocabulary[1]},
        }


def find_lineage(student: StoredCheckpoint, teacher: StoredCheckpoint) -> Lineage:
    """Compare the two by names and shapes, and their blocks by a sample of the weights."""
    ours, theirs = student.source.entries, teacher.source.entries
    architecture = find_architecture(ours, student.config)
    other = find_architecture(theirs, teacher.config)
    prefixes = {group.prefix for group in other.groups}
    # a student of one block has no siblings that would show that it is one
    groups = [item for item in block_groups(ours) if item.is_uniform or item.prefix in prefixes]
    roles, other_roles = _weight_roles(ours.values()), _weight_roles(theirs.values())
    shared = [role for role in roles if role in other_roles]
    return Lineage(
        teacher=str(teacher.path),
        parameters=(count_parameters(ours.values()), count_parameters(theirs.values())),
        sizes_bytes=(_size_bytes(ours.values()), _size_bytes(theirs.values())),
        layers=tuple(_layer_matches(student.source, groups, teacher.source, other.groups)),
        widths=tuple(
            WidthMatch(role=role, student=roles[role], teacher=other_roles[role])
            for role in shared
            if roles[role] != other_roles[role]
        ),
        shared_roles=len(shared),
        vocabulary=(architecture.vocabulary, other.vocabulary),
    )


def distillation_look(lineage: Lineage) -> Look:
    """What the comparison says of distillation; likeness shows a start from the teacher at most."""
    student, teacher = lineage.parameters
    evidence: tuple[str, ...]
    if not student < teacher:
        sizes = f"it has {student:,} parameters, the teacher {teacher:,}"
        evidence = (f"{sizes}: it is not smaller",)
        return Look(trait=Trait.DISTILLED, certainty=Certainty.NO_SIGN, evidence=evidence)
    alike = [match for match in lineage.layers if match.alike is not None]
    if alike:
        count = f"{len(alike)} of {len(lineage.layers)} blocks have weights like the teacher's"
        evidence = (count, f"the first is {alike[0].student} like {alike[0].alike}")
        return Look(trait=Trait.DISTILLED, certainty=Certainty.LOOKS, evidence=evidence)
    compared = [match for match in lineage.layers if match.cosine is not None]
    smaller = f"it has {text_from_share(student / teacher)} of the teacher's parameters"
    seen = "none of its blocks is like one of the teacher's" if compared else "no block compares"
    certainty = Certainty.MAY_BE if lineage.shared_roles else Certainty.NO_SIGN
    return Look(trait=Trait.DISTILLED, certainty=certainty, evidence=(smaller, seen))


def count_parameters(entries: Iterable[TensorEntry]) -> int:
    """Elements of all that training changes."""
    return sum(entry.elements for entry in entries if is_parameter(entry))


def _size_bytes(entries: Iterable[TensorEntry]) -> int:
    return sum(entry.size_bytes for entry in entries)


def _weight_roles(entries: Iterable[TensorEntry]) -> dict[str, tuple[int, ...]]:
    """The shape of each role, of several blocks that of the first."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        if is_weight(entry):
            shapes.setdefault(role_of(entry.name), entry.shape)
    return shapes


def _layer_matches(
    source: TensorSource,
    groups: Sequence[BlockGroup],
    other_source: TensorSource,
    other_groups: Sequence[BlockGroup],
) -> list[LayerMatch]:
    matches = []
    for group, counterpart in _group_pairs(groups, other_groups):
        cosines = block_cosines(source, group, other_source, counterpart)
        last = max(len(group.indices) - 1, 1)
        for place, index in enumerate(group.indices):
            depth = round(place * (len(counterpart.indices) - 1) / last)
            position = f"{counterpart.prefix}{counterpart.indices[depth]}"
            best = None if cosines is None else int(np.argmax(cosines[place]))
            cosine = None if cosines is None or best is None else float(cosines[place, best])
            is_alike = best is not None and cosine is not None and cosine >= LIKE
            matches.append(
                LayerMatch(
                    student=f"{group.prefix}{index}",
                    position=position,
                    alike=f"{counterpart.prefix}{counterpart.indices[best]}"
                    if is_alike and best is not None
                    else None,
                    cosine=cosine,
                )
            )
    return matches


def _group_pairs(
    ours: Sequence[BlockGroup], theirs: Sequence[BlockGroup]
) -> list[tuple[BlockGroup, BlockGroup]]:
    """Groups of one prefix; else in order where there are as many, else the teacher's longest."""
    if not theirs:
        return []
    by_prefix = {group.prefix: group for group in theirs}
    longest = max(theirs, key=lambda group: len(group.indices))
    in_order = list(theirs) if len(theirs) == len(ours) else [longest] * len(ours)
    return [
        (group, by_prefix.get(group.prefix, fallback))
        for group, fallback in zip(ours, in_order, strict=True)
    ]
