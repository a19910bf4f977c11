"""Comparison text: a lineage and destinations as aligned lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edgeship.quantities import text_from_bytes
from edgeship.source.destination import Destination, estimate_weights, fallback_weights
from edgeship.source.lineage import LayerMatch, Lineage
from edgeship.source.sparsity import text_from_share
from edgeship.source.survey import Survey
from edgeship.source.survey_text import Row, table_lines
from edgeship.source.tensor_name import shown_name
from edgeship.vocabulary import Format

_LAYERS: Final = 12
_WIDTHS: Final = 8
_NOTHING: Final = "-"


def lineage_lines(lineage: Lineage) -> list[str]:
    """What was reduced, which block corresponds to which, and which shapes changed."""
    student, teacher = lineage.parameters
    sizes = [text_from_bytes(size) for size in lineage.sizes_bytes]
    ratio = text_from_share(lineage.sizes_bytes[0] / lineage.sizes_bytes[1])
    lines = [
        f"against {shown_name(Path(lineage.teacher).name)}: {student:,} of {teacher:,} parameters "
        f"({text_from_share(student / teacher) if teacher else _NOTHING}), "
        f"{sizes[0]} of {sizes[1]} ({ratio})"
    ]
    ours, theirs = lineage.vocabulary
    if ours != theirs:
        lines.append(f"vocabulary: {ours or 'unknown'}, the teacher's {theirs or 'unknown'}")
    same = lineage.shared_roles - len(lineage.widths)
    lines.append(f"{lineage.shared_roles} kinds of weights in common, {same} with equal shapes")
    rows: list[Row] = [
        (shown_name(match.role), _shape(match.student), "of", _shape(match.teacher))
        for match in lineage.widths[:_WIDTHS]
    ]
    lines += [f"  {line}" for line in table_lines(rows)]
    if len(lineage.widths) > _WIDTHS:
        lines.append(f"  and {len(lineage.widths) - _WIDTHS} more")
    return [*lines, *_layer_lines(lineage.layers)]


def destination_lines(survey: Survey, destinations: Sequence[Destination]) -> list[str]:
    """A table of boards, the estimate by precision, and why cells are empty.

    Of a checkpoint that goes nowhere, only why.
    """
    if not any(_is_open(item) for item in destinations):
        return list(_reasons(destinations))
    takes_gguf = any(_is_open(item) and item.format is Format.GGUF for item in destinations)
    shown = ", ".join(
        f"{name} {text_from_bytes(size)}"
        for name, size in estimate_weights(survey).items()
        if takes_gguf or not name.startswith("q")
    )
    notes = [f"weights alone, estimated: {shown}"]
    few, all_ = fallback_weights(survey)
    if few and takes_gguf:
        notes.append(
            f"{few} of {all_} weights have rows that are no multiple of 256: K-quants fall back "
            "to larger types there"
        )
    return [*table_lines(destination_rows(destinations)), *notes, *_reasons(destinations)]


def destination_rows(destinations: Sequence[Destination]) -> list[Row]:
    """A header and a row for each board: what it could take, with the weights' bytes."""
    targets = list(dict.fromkeys(item.target for item in destinations))
    rows: list[Row] = [("target", "memory", *(str(format_) for format_ in Format))]
    for target in targets:
        memory = next(item.memory_bytes for item in destinations if item.target == target)
        cells = [f"{memory / 2**30:.0f} GiB"]
        for format_ in Format:
            items = [x for x in destinations if x.target == target and x.format is format_]
            cells.append(_cell(items))
        rows.append((target, *cells))
    return rows


def _cell(items: Sequence[Destination]) -> str:
    open_ = [item for item in items if _is_open(item)]
    if not open_:
        return _NOTHING
    parts = []
    for item in open_:
        remark = "" if item.fit == "fits" else f" {item.fit}"
        parts.append(f"{item.precision} {text_from_bytes(item.weight_bytes)}{remark}")
    return ", ".join(parts) + ("" if open_[0].is_makeable else " *")


def _reasons(destinations: Sequence[Destination]) -> Iterator[str]:
    open_ = [item for item in destinations if _is_open(item)]
    missing = sorted({str(item.format) for item in open_ if not item.is_makeable})
    if missing:
        yield f"* this version makes no {', '.join(missing)} yet"
    for need in dict.fromkeys(item.needs for item in open_ if item.needs is not None):
        formats = sorted({str(item.format) for item in open_ if item.needs == need})
        yield f"{', '.join(formats)}: with {need}"
    obstacles = {item.obstacle: item.format for item in destinations if item.obstacle is not None}
    for obstacle in obstacles:
        formats = sorted({str(item.format) for item in destinations if item.obstacle == obstacle})
        yield f"no {', '.join(formats)}: {obstacle}"
    if any(item.obstacle is None and item.board_obstacle is not None for item in destinations):
        yield "other empty cells: the board takes none of it, see `edgeship targets`"


def _is_open(item: Destination) -> bool:
    return item.obstacle is None and item.board_obstacle is None


def _layer_lines(layers: Sequence[LayerMatch]) -> Iterator[str]:
    """Who corresponds to whom; of many, the first ones."""
    if not layers:
        yield "no blocks to compare"
        return
    yield "blocks of the student <- of the teacher, by depth"
    rows = []
    for match in layers[:_LAYERS]:
        if match.cosine is None:
            remark = "shapes differ"
        elif match.alike is None:
            remark = f"unlike all of them (largest cosine {match.cosine:.2f})"
        elif match.alike == match.position:
            remark = f"alike (cosine {match.cosine:.2f})"
        else:
            remark = f"more like {shown_name(match.alike)} (cosine {match.cosine:.2f})"
        rows.append((shown_name(match.student), "<-", shown_name(match.position), remark))
    yield from (f"  {line}" for line in table_lines(rows))
    if len(layers) > _LAYERS:
        yield f"  and {len(layers) - _LAYERS} more"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
