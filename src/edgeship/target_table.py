"""Reads a table `[targets.<name>]` of a project file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from edgeship.budget import Budget
from edgeship.errors import unknown_name
from edgeship.project import (
    DEFAULT_PERCENTILE,
    EqualizePolicy,
    FormatSection,
    RangePolicy,
    Rule,
    TargetSection,
)
from edgeship.quantities import bytes_from_text, fraction_from_points, milliseconds_from_text
from edgeship.table_values import existing_path
from edgeship.tables import Table
from edgeship.vocabulary import (
    PRECISIONS,
    RULE_PRECISIONS,
    Format,
    Place,
    RangeMethod,
    RewriteName,
)

_OFF: Final = "off"
_AUTO: Final = "auto"


def read_target(name: str, table: Table, directory: Path) -> TargetSection:
    """One target of a project in `directory`; what is wrong with it is a problem of its table."""
    file = existing_path(table, "file", directory, kind="file")
    os = table.text("os")
    known = [str(member) for member in Format]
    names = _names(table, "formats", required=True) or ()
    for text in names:
        if text not in known:
            table.problems.append(
                unknown_name(kind="format", name=text, choices=known, where=table.where("formats"))
            )
    formats = tuple(_read_format(Format(text), table, directory) for text in names if text in known)
    if not names or not set(names) <= set(known):
        for text in known:  # the tables of formats that were misspelt, for their problems
            if text in table and text not in names:
                _read_format(Format(text), table, directory)
    budget = _read_budget(table)
    table.close()
    return TargetSection(name=name, formats=formats, budget=budget, file=file, os=os)


def _read_format(format_: Format, target: Table, directory: Path) -> FormatSection:
    table = target.table(str(format_))
    if table is None:
        return FormatSection(format=format_)
    precisions = _names(table, "precisions")
    for precision in precisions or ():
        _check_precision(format_, precision, table, "precisions", PRECISIONS[format_])
    ranges = _read_ranges(table)
    rules = tuple(rule for below in table.array("rules") if (rule := _read_rule(below, format_)))
    is_gguf = format_ is Format.GGUF
    equalize = EqualizePolicy() if is_gguf else _read_equalize(table)
    is_strict = table.boolean("strict") if is_gguf else None
    context = table.integer("context", minimum=1) if is_gguf else None
    converter = existing_path(table, "converter", directory, kind="file") if is_gguf else None
    table.close()
    return FormatSection(
        format=format_,
        precisions=precisions,
        ranges=ranges,
        equalize=equalize,
        rules=rules,
        is_strict=is_strict is True,
        context=context,
        converter=converter,
    )


def _read_rule(table: Table, format_: Format) -> Rule | None:
    match = table.text("match", required=True)
    precision = table.text("precision", required=True)
    table.close()
    if match is None or precision is None:
        return None
    if not _check_precision(format_, precision, table, "precision", RULE_PRECISIONS[format_]):
        return None
    return Rule(match=match, precision=precision)


def _check_precision(
    format_: Format, precision: str, table: Table, key: str, choices: tuple[str, ...]
) -> bool:
    if precision in choices:
        return True
    table.problems.append(
        unknown_name(
            kind=f"{format_} precision",
            name=precision,
            choices=choices,
            where=table.where(key),
        )
    )
    return False


def _read_ranges(table: Table) -> RangePolicy:
    """`"min-max"`, `"percentile"` or `"percentile:99.99"`."""
    text = table.text("ranges")
    if text is None:
        return RangePolicy()
    name, colon, number = text.partition(":")
    methods = [str(method) for method in RangeMethod]
    if name not in methods:
        table.problems.append(
            unknown_name(kind="policy", name=name, choices=methods, where=table.where("ranges"))
        )
        return RangePolicy()
    method = RangeMethod(name)
    if not colon:
        return RangePolicy(method=method)
    try:
        percentile = float(number)
    except ValueError:
        percentile = 0.0
    if method is not RangeMethod.PERCENTILE or not 50 < percentile <= 100:
        table.problem(
            "ranges",
            "the policy cannot be read",
            expected=f'"min-max" or "percentile:{DEFAULT_PERCENTILE}" with a share in (50, 100]',
            found=repr(text),
            remedy="change the value",
        )
        return RangePolicy()
    return RangePolicy(method=method, percentile=percentile)


def _read_equalize(table: Table) -> EqualizePolicy:
    """`"auto"`, `"off"`, or a list of rewrites."""
    value = table.word_or_texts("equalize")
    if value is None or value == _AUTO:
        return EqualizePolicy()
    if value == _OFF:
        return EqualizePolicy(names=())
    known = [str(name) for name in RewriteName]
    if isinstance(value, str):
        table.problem(
            "equalize",
            "the value cannot be read",
            expected=f'"{_AUTO}", "{_OFF}", or a list of {", ".join(known)}',
            found=repr(value),
            remedy=f'write equalize = ["{value}"]' if value in known else "change the value",
        )
        return EqualizePolicy()
    for name in value:
        if name not in known:
            table.problems.append(
                unknown_name(
                    kind="rewrite", name=name, choices=known, where=table.where("equalize")
                )
            )
    names = [RewriteName(name) for name in value if name in known]
    return EqualizePolicy(names=tuple(dict.fromkeys(names)))


def _read_budget(target: Table) -> Budget:
    table = target.table("budget")
    if table is None:
        return Budget()
    drop = table.quantity("accuracy_drop", _accuracy_drop_from_text)
    budget = Budget(
        size_bytes=table.quantity("size", bytes_from_text),
        accuracy_drop=None if drop == math.inf else drop,
        class_drop=table.quantity("class_drop", fraction_from_points),
        is_accuracy_judged=drop != math.inf,
        latency_p95_ms=table.quantity("latency_p95", milliseconds_from_text),
        memory_bytes=table.quantity("memory", bytes_from_text),
        evidence=table.choice("evidence", Place),
    )
    table.close()
    return budget


def _accuracy_drop_from_text(text: str) -> float:
    """A fraction; infinite for `"off"`."""
    return math.inf if text == _OFF else fraction_from_points(text)


def _names(table: Table, key: str, *, required: bool = False) -> tuple[str, ...] | None:
    """A list that names at least one thing, and each once."""
    names = table.texts(key, required=required)
    if names == ():
        table.problem(key, "the list is empty", remedy="name at least one")
    if names is not None and len(set(names)) < len(names):
        table.problem(
            key, "the list names one twice", found=str(list(names)), remedy="remove the second"
        )
        return tuple(dict.fromkeys(names))
    return names
