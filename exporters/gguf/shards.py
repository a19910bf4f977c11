"""Shards: whether a checkpoint holds what the file asks for, and its rows as they are wanted.

That its files are whole (headers, offsets, index against shards) is checked where they are opened:
`edgeship.source.stored_checkpoint`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.source.element import Bits, ElementType
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import Span, TensorEntry, TensorSource

ELEMENTS: Final = (ElementType.BF16, ElementType.F16, ElementType.F32)
"""What widens to float32 exactly and needs no scale from another tensor."""
_SHOWN: Final = 5


def check_tensors(entries: Mapping[str, TensorEntry], tensors: Iterable[TensorPlan]) -> None:
    """Refuse a checkpoint that does not hold every tensor as planned.

    Raises:
        ConfigurationError: Tensors that are absent, of another shape, or no plain floats; the
            first few by name.
    """
    problems = list(_problems(entries, tensors))
    if len(problems) > _SHOWN:
        rest = Problem(
            where="checkpoint",
            what=f"{len(problems) - _SHOWN} more of its tensors cannot be used",
            remedy="save the model again, whole",
        )
        problems[_SHOWN:] = [rest]
    if problems:
        raise ConfigurationError(*problems)


def read_rows(source: TensorSource, plan: TensorPlan, first: int, count: int) -> Bits:
    """Rows `first` to `first + count` as they are stored, 1-D, not to be written to.

    Raises:
        ConfigurationError: The file has become shorter, or cannot be read any more.
    """
    span = Span(start=first * plan.columns, count=count * plan.columns)
    return source.read(plan.source, span)


def _problems(
    entries: Mapping[str, TensorEntry], tensors: Iterable[TensorPlan]
) -> Iterator[Problem]:
    for plan in tensors:
        if plan.values is not None:
            continue
        where = shown_name(plan.source)
        entry = entries.get(plan.source)
        if entry is None:
            yield Problem(
                where=where,
                what="the checkpoint has no such tensor",
                expected=f"the weights of {plan.name}",
                remedy="save the model again, whole",
            )
        elif entry.shape != plan.shape:
            yield Problem(
                where=where,
                what="the tensor has another shape than config.json says",
                expected=f"{list(plan.shape)}",
                found=f"{list(entry.shape)}",
                remedy="save weights and config.json from the same model",
            )
        elif entry.element not in ELEMENTS:
            yield Problem(
                where=where,
                what="weights of this element type cannot be quantized",
                expected=", ".join(ELEMENTS),
                found=str(entry.element),
                remedy="save the model unquantized, in bfloat16 or float32",
            )
