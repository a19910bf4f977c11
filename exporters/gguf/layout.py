"""Layout: where every tensor of the file will lie, known before any weight is read.

Source: ggml/docs/gguf.md of llama.cpp, "File Structure", and `gguf_add_tensor` of
ggml/src/gguf.cpp, for the padding; src/llama-model-loader.h, `weight_name_comparer`, for the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.mixture import file_order

ALIGNMENT: Final = 32
"""GGUF_DEFAULT_ALIGNMENT of ggml/include/gguf.h, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """One tensor of the file.

    Attributes:
        offset: Of its first byte, from the start of the data.
    """

    plan: TensorPlan
    kind: Kind
    offset: int

    @property
    def rows(self) -> int:
        """Number of rows; 1 of a vector."""
        return self.plan.elements // self.plan.columns

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the file."""
        return self.kind.row_bytes(self.plan.columns)

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        return self.rows * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All tensors in the order of the file.

    Attributes:
        data_bytes: From the start of the data to the end of the file.
    """

    placements: tuple[Placement, ...]
    data_bytes: int


def padded(size_bytes: int) -> int:
    """The size with what follows up to the next tensor."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def lay_out(tensors: Iterable[TensorPlan], kinds: Mapping[str, Kind]) -> Layout:
    """Place the tensors as llama-quantize does; the last one is padded too.

    Raises:
        ExportFailed: Tensors without weights, or whose rows are no whole blocks of their kind.
    """
    ordered = sorted(tensors, key=lambda plan: file_order(plan.name))
    problems = [
        problem for plan in ordered if (problem := _problem(plan, kinds[plan.name])) is not None
    ]
    if problems:
        raise ExportFailed(*problems)
    placements: list[Placement] = []
    offset = 0
    for plan in ordered:
        placement = Placement(plan=plan, kind=kinds[plan.name], offset=offset)
        placements.append(placement)
        offset += padded(placement.size_bytes)
    return Layout(placements=tuple(placements), data_bytes=offset)


def _problem(plan: TensorPlan, kind: Kind) -> Problem | None:
    if plan.elements == 0:
        return Problem(
            where=plan.name,
            what="the tensor holds no weights",
            found=f"shape {list(plan.shape)}",
            remedy="save the model again without it",
        )
    if not kind.fits(plan.columns):
        return Problem(
            where=plan.name,
            what=f"rows cannot be stored as {kind}",
            expected=f"a multiple of {kind.block} columns",
            found=f"{plan.columns}",
            remedy="choose a type with smaller blocks, or f16",
        )
    return None
