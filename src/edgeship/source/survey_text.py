"""Survey text: a survey as aligned lines for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from edgeship.quantities import text_from_bytes
from edgeship.source.architecture import Architecture, is_weight
from edgeship.source.looks import Certainty, Look, Trait
from edgeship.source.sparsity import text_from_share
from edgeship.source.survey import Survey
from edgeship.source.tensor_facts import NEAR_ZERO, TensorFacts
from edgeship.source.tensor_name import role_of, shown_name

_ROWS: Final = 20
"""Weights that get a row each; of more, each role gets one."""
_NAMES: Final = 4
_NOTHING: Final = "-"

Row = tuple[str, ...]


def survey_lines(survey: Survey) -> list[str]:
    """About 40 lines at most: what it is, what it looks like, then its weights."""
    types = ", ".join(
        f"{element} {text_from_bytes(size)}" for element, size in survey.bytes_by_type.items()
    )
    only = len(survey.bytes_by_type) == 1
    size = f"{text_from_bytes(survey.size_bytes)} ({next(iter(survey.bytes_by_type))})"
    facts = [
        ("checkpoint", f"{shown_name(survey.path)}, a {survey.kind}"),
        ("size", f"{_parameters(survey)}; {size if only else types}"),
        ("what it is", _what(survey.architecture)),
        *_structure(survey),
        *((str(look.trait), _look(look)) for look in survey.looks),
        *(("note", finding) for finding in survey.findings),
    ]
    return [*_pairs(facts), "", *table_lines(weight_rows(survey))]


def weight_rows(survey: Survey) -> list[Row]:
    """A header and a row for each weight; a row for each role where there are many weights."""
    weights = [item for item in survey.tensors if is_weight(item.entry)]
    groups: defaultdict[str, list[TensorFacts]] = defaultdict(list)
    for item in weights:
        is_role = len(weights) > _ROWS
        groups[role_of(item.entry.name) if is_role else item.entry.name].append(item)
    header = ("weight", "count", "shape", "type", "size", "zeros", "zero channels", "absmax")
    rows = [header, *(_weight_row(name, items) for name, items in groups.items())]
    # a column that says nothing is left out
    kept = [
        column
        for column in range(len(header))
        if column in (0, 2) or len({row[column] for row in rows[1:]} - {"1", _NOTHING}) > 0
    ]
    return [tuple(row[column] for column in kept) for row in rows]


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Columns two spaces apart, texts to the left, without spaces at the end of a line."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(key) for key, _ in pairs)
    return [f"{key.ljust(width)}  {text}" for key, text in pairs]


def _parameters(survey: Survey) -> str:
    text = f"{survey.parameters:,} parameters"
    if survey.buffers:
        text += f" and {survey.buffers:,} elements of buffers"
    return text


def _what(architecture: Architecture) -> str:
    parts = [part for part in (architecture.class_name, architecture.model_type) if part]
    named = f"{architecture.kind} {' / '.join(parts)}".rstrip()
    counts = [
        _counted(architecture.convolutions, "convolution"),
        _counted(architecture.linears, "linear layer"),
    ]
    return f"{named} (by {architecture.source}): {', '.join(filter(None, counts))}"


def _structure(survey: Survey) -> Iterator[tuple[str, str]]:
    architecture = survey.architecture
    if architecture.groups:
        shown = [shown_name(group.shown) for group in architecture.groups]
        yield "blocks", f"{architecture.layers}: {_first_names(shown)}"
    if architecture.widths and architecture.class_name is None:
        yield "widths", _first_names([str(width) for width in architecture.widths], limit=12)
    else:
        sizes = (
            ("hidden", architecture.hidden),
            ("heads", architecture.heads),
            ("kv heads", architecture.kv_heads),
            ("feed-forward", architecture.ffn),
            ("vocabulary", architecture.vocabulary),
        )
        yield "sizes", ", ".join(f"{key} {value}" for key, value in sizes if value is not None)
    if survey.batch_norm is not None:
        norm = survey.batch_norm
        text = f"{norm.channels} channels in {_counted(norm.layers, 'layer')}"
        if norm.dead:
            where = _first_names([shown_name(name) for name in norm.dead_in])
            text += f"; {norm.dead} look dead (|gamma| <= {NEAR_ZERO:g}): {where}"
        yield "batch norm", text
    if architecture.ties_embeddings:
        yield "tied", "the head is the embedding (by config.json)"
    for group in survey.tied:
        yield "tied", " = ".join(map(shown_name, group[:_NAMES]))


def _look(look: Look) -> str:
    evidence = "; ".join(look.evidence)
    if look.certainty is Certainty.NO_SIGN:
        return f"{'not' if look.trait is Trait.FULL else 'no sign'}: {evidence}"
    return f"{look.certainty} {look.trait}: {evidence}"


def _weight_row(name: str, items: Sequence[TensorFacts]) -> Row:
    elements = sum(item.entry.elements for item in items)
    zeros = sum(item.zeros for item in items)
    absmax = max((item.absmax for item in items if item.absmax is not None), default=None)
    return (
        shown_name(name),
        str(len(items)),
        _first_names(list(dict.fromkeys(_shape(item) for item in items)), limit=2),
        _first_names(sorted({str(item.entry.element) for item in items})),
        text_from_bytes(sum(item.entry.size_bytes for item in items)),
        text_from_share(zeros / elements) if zeros else _NOTHING,
        _zero_channels(items),
        _NOTHING if absmax is None else f"{absmax:.3g}",
    )


def _zero_channels(items: Iterable[TensorFacts]) -> str:
    """`3/16 out, 1/16 in` of all items together; nothing where none is all zero."""
    known = [item for item in items if item.zero_outputs is not None]
    outputs = sum(item.zero_outputs or 0 for item in known)
    inputs = sum(item.zero_inputs or 0 for item in known)
    totals = [sum(item.entry.shape[axis] for item in known) for axis in (0, 1)]
    parts = [f"{outputs}/{totals[0]} out"] * bool(outputs)
    parts += [f"{inputs}/{totals[1]} in"] * bool(inputs)
    return ", ".join(parts) or _NOTHING


def _shape(item: TensorFacts) -> str:
    return "x".join(map(str, item.entry.shape))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}" if count else ""


def _first_names(names: Sequence[str], *, limit: int = _NAMES) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
