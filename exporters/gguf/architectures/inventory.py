"""Inventory: the tensors that an architecture needs, held against those that a checkpoint has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.source.element import ElementType
from edgeship.source.hf_config import read_json_object
from edgeship.source.hf_directory import INDEX, WHOLE
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorEntry

_SHOWN: Final = 5
_ELEMENTS: Final = (ElementType.F32, ElementType.F16, ElementType.BF16)


@dataclass(frozen=True, kw_only=True)
class Need:
    """A tensor that an architecture takes.

    Attributes:
        source: Name in the checkpoint.
        plan: What becomes of it.
        is_optional: Whether the model works without it: biases.
    """

    source: str
    plan: TensorPlan
    is_optional: bool = False


def need(
    name: str,
    source: str,
    *shape: int,
    permuted_heads: int | None = None,
    is_optional: bool = False,
) -> Need:
    """The tensor `name` of the file, which the checkpoint calls `source`."""
    plan = TensorPlan(name=name, shape=shape, source=source, permuted_heads=permuted_heads)
    return Need(source=source, plan=plan, is_optional=is_optional)


def match_tensors(
    directory: Path,
    entries: Mapping[str, TensorEntry],
    needs: Iterable[Need],
    is_left_out: Callable[[str], bool],
) -> tuple[TensorPlan, ...]:
    """Plans in the order of the checkpoint.

    Args:
        directory: For messages.
        entries: Every tensor of the checkpoint.
        needs: Every tensor of the architecture.
        is_left_out: Whether a tensor of that name may be there and is not written.

    Raises:
        ConfigurationError: Tensors that are missing, unexpected, of a wrong shape or of an element
            type that cannot be widened: the first few of each kind by file and name.
    """
    wanted = {item.source: item for item in needs}
    missing = [
        name for name, item in wanted.items() if name not in entries and not item.is_optional
    ]
    unexpected = [name for name in entries if name not in wanted and not is_left_out(name)]
    found = {name: entry for name, entry in entries.items() if name in wanted}
    shapes = {
        name: (str(list(wanted[name].plan.shape)), str(list(entry.shape)))
        for name, entry in found.items()
        if entry.shape != wanted[name].plan.shape
    }
    types = {
        name: (", ".join(_ELEMENTS), str(entry.element))
        for name, entry in found.items()
        if entry.element not in _ELEMENTS
    }
    problems = [
        *_problems(directory, "the tensor is missing", dict.fromkeys(missing)),
        *_problems(
            directory, "the tensor has no place in this architecture", dict.fromkeys(unexpected)
        ),
        *_problems(directory, "the tensor has another shape", shapes),
        *_problems(directory, "the tensor's element type cannot be widened", types),
    ]
    if problems:
        raise ConfigurationError(*problems)
    return tuple(wanted[name].plan for name in found)


def file_of(directory: Path, name: str) -> Path:
    """The file that holds a tensor, or should; for messages."""
    if (directory / WHOLE).exists() or not (directory / INDEX).exists():
        return directory / WHOLE
    weight_map = read_json_object(directory / INDEX).get("weight_map")
    shard = weight_map.get(name) if isinstance(weight_map, dict) else None
    return directory / (shard if isinstance(shard, str) else INDEX)


def _problems(
    directory: Path, what: str, names: Mapping[str, tuple[str, str] | None]
) -> Iterator[Problem]:
    """One problem a name, and one for all beyond the first few."""
    remedy = "fetch or save the model again; config.json must be of the same model"
    for name, sides in list(names.items())[:_SHOWN]:
        expected, found = sides or (None, None)
        yield Problem(
            where=f"{file_of(directory, name)}: {shown_name(name)}",
            what=what,
            expected=expected,
            found=found,
            remedy=remedy,
        )
    if len(names) > _SHOWN:
        rest = f"{what}; {len(names) - _SHOWN} more of this kind"
        yield Problem(where=str(directory), what=rest, remedy=remedy)
