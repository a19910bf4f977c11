"""Format rows: the tables `[formats.<f>]` of a catalogue file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgeship.errors import unknown_name
from edgeship.tables import Table
from edgeship.targets.keys import require_keys, version
from edgeship.targets.target import ActivationType, FormatFacts, Runtime, RuntimeFact
from edgeship.vocabulary import PRECISIONS, Format

RUNTIMES: Final[Mapping[Format, tuple[Runtime, ...]]] = {
    Format.ONNX: (Runtime.ONNXRUNTIME,),
    Format.TFLITE: (Runtime.LITERT, Runtime.TFLITE_RUNTIME),
    Format.GGUF: (Runtime.LLAMA_CPP,),
    Format.TENSORRT: (Runtime.TENSORRT,),
}


def read_formats(table: Table) -> dict[Format, FormatFacts]:
    """What the tables below `table`'s key "formats" say, by format; problems go to the table."""
    formats = {}
    names = [str(format) for format in Format]
    for name, below in table.tables("formats"):
        if name not in names:
            below.problems.append(
                unknown_name(kind="format", name=name, choices=names, where=below.where())
            )
            continue
        formats[Format(name)] = _read_format(Format(name), below)
        below.close()
    return formats


def _read_format(format: Format, table: Table) -> FormatFacts:
    """TensorRT's runtime is not read here: it belongs to the OS image."""
    precisions = _read_precisions(format, table)
    reason = table.text("reason")
    if not precisions and "precisions" in table and "reason" not in table:
        table.problem(
            "reason",
            "no precision is a default, and no reason is given",
            remedy="say why the board takes none of this format, or name a precision",
        )
    is_named = format is not Format.TENSORRT
    runtimes = _read_runtimes(format, table, is_required=bool(precisions)) if is_named else ()
    activation_type, reduce_range = None, None
    if format is Format.ONNX:
        activation_type = table.choice("activation_type", ActivationType)
        reduce_range = table.boolean("reduce_range")
        if precisions:
            require_keys(table, "activation_type", "reduce_range")
    return FormatFacts(
        precisions=precisions,
        runtimes=runtimes,
        activation_type=activation_type,
        reduce_range=reduce_range is True,
        reason=reason,
    )


def _read_precisions(format: Format, table: Table) -> tuple[str, ...]:
    precisions = table.texts("precisions", required=True) or ()
    for precision in precisions:
        if precision not in PRECISIONS[format]:
            table.problems.append(
                unknown_name(
                    kind=f"{format} precision",
                    name=precision,
                    choices=PRECISIONS[format],
                    where=table.where("precisions"),
                )
            )
    return precisions


def _read_runtimes(format: Format, table: Table, *, is_required: bool) -> tuple[RuntimeFact, ...]:
    runtimes = []
    rows = list(table.array("runtimes"))
    if is_required and not rows:
        table.problem(
            "runtimes",
            "no runtime loads these precisions",
            expected="[{ name, version }]",
            remedy="name one, or no precision and the reason",
        )
    for below in rows:
        require_keys(below, "name", "version")
        name = below.choice("name", Runtime)
        number = version(below, "version")
        below.close()
        if name is not None and name not in RUNTIMES[format]:
            below.problem(
                "name",
                f"this runtime loads no {format}",
                expected=" or ".join(RUNTIMES[format]),
                found=name,
                remedy="name one that does",
            )
        elif name is not None and number is not None:
            runtimes.append(RuntimeFact(name=name, version=number))
    return tuple(runtimes)
