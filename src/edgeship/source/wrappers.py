"""Wrappers: what training scripts put around weights, dicts and prefixes of names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.tensor_name import shown_name

if TYPE_CHECKING:
    from torch import Tensor

NESTS: Final = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "student",
    "model_ema",
    "ema",
    "ema_state_dict",
)
"""Keys under which training scripts nest the weights, the one to prefer first: averaged weights
are taken only where nothing else is there, or where only their names are the module's."""
PREFIXES: Final = ("module.", "_orig_mod.", "ddp.")
"""What torch.nn.DataParallel, torch.compile and DistributedDataParallel put before each name."""
AMBIGUOUS: Final = ("model.", "student.", "net.")
"""Prefixes that a training script adds, but that a module's own names may have too."""
OTHERS: Final = ("teacher.", "model_ema.", "ema_model.", "ema.")
"""Prefixes of what lies beside the weights: another net, or the same one averaged."""
_STUDENT: Final = "student."
_DEPTH_LIMIT: Final = 8
"""A choice: training scripts nest two or three deep."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to read a checkpoint.

    Attributes:
        place: The keys that lead to the tensors, and the prefix taken off: `model/student.`.
        left_out: What was passed over, in words; None if nothing was.
    """

    tensors: dict[str, Tensor]
    place: str
    left_out: str | None = None


def find_candidates(value: object, *, where: str) -> list[Candidate]:
    """Every way to read it, the one to prefer first.

    The order is fixed: keys as in `NESTS`; of each the names without `PREFIXES` and without
    `OTHERS`, then without an ambiguous prefix too, then as they are stored. The first one is what
    the checkpoint is taken for where there is no module to compare with.

    Raises:
        ConfigurationError: It holds no tensors.
    """
    nests = _nested(value, "", ())
    found = [candidate for place, tensors in nests for candidate in _readings(tensors, place)]
    if found:
        return found
    if isinstance(value, Mapping):
        keys = ", ".join(shown_name(str(key)) for key in list(value)[:20])
        described = f"keys {keys}" if value else "nothing"
    else:
        described = type(value).__name__
    problem = Problem(
        where=where,
        what="no tensors were found",
        expected=f"a state_dict, or one under a key such as {', '.join(NESTS[:3])}",
        found=described,
        remedy="save model.state_dict()",
    )
    raise ConfigurationError(problem)


def choose_candidate(candidates: Sequence[Candidate], wanted: Collection[str]) -> Candidate:
    """The one with the most of the names `wanted`, then with the fewest others; first of equals."""
    names = set(wanted)

    def rank(candidate: Candidate) -> tuple[int, int]:
        common = len(names.intersection(candidate.tensors))
        return -common, len(candidate.tensors) - common

    return min(candidates, key=rank)


def choice_notes(candidates: Sequence[Candidate], chosen: Candidate) -> Iterator[str]:
    """What must be said of a choice among several sets of tensors."""
    if chosen.left_out is not None:
        yield f"of the checkpoint, {chosen.left_out} is left out"
    places = list(dict.fromkeys(_nest_of(candidate) for candidate in candidates))
    taken = _nest_of(chosen)
    others = [place for place in places if place != taken]
    if others:
        yield f"the checkpoint holds {', '.join(places)}: {taken} is taken"


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors; prefixes of `PREFIXES` that stand before every name are taken off."""
    names = list(tensors)
    while prefix := _common_prefix(names, PREFIXES):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _nested(
    value: object, place: str, above: tuple[object, ...]
) -> list[tuple[str, dict[str, Tensor]]]:
    """State dicts in nested dicts, by place; a pickle may hold a dict that holds itself.

    Tensors beside a nested dict are the weights only where they are more than it has: beside the
    weights a script keeps counters, and a module may have a tensor that is called `model`.
    """
    from torch import Tensor

    if not isinstance(value, Mapping) or any(value is item for item in above):
        return []
    if len(above) >= _DEPTH_LIMIT:
        return []
    tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
    inner = [
        found
        for key in NESTS
        for found in _nested(value.get(key), f"{place}{key}/", (*above, value))
    ]
    own = [(place, tensors)] if tensors else []
    if inner and len(tensors) <= max(len(found) for _, found in inner):
        return inner
    return own + inner


def _readings(tensors: Mapping[str, Tensor], place: str) -> Iterator[Candidate]:
    """Readings of one state dict, as in `find_candidates`."""
    plain = without_prefixes(tensors)
    kept = {name: item for name, item in plain.items() if not name.startswith(OTHERS)} or plain
    left_out = None
    if len(kept) < len(plain):
        beside = [
            f"{prefix}*" for prefix in OTHERS if any(name.startswith(prefix) for name in plain)
        ]
        left_out = f"{', '.join(beside)} ({len(plain) - len(kept)} tensors)"
    shorter = without_prefixes(kept)
    readings = [Candidate(tensors=shorter, place=place, left_out=left_out)]
    inner = place
    while prefix := _common_prefix(list(shorter), (*AMBIGUOUS, *PREFIXES)):
        shorter = {name.removeprefix(prefix): item for name, item in shorter.items()}
        inner += prefix
        readings.append(Candidate(tensors=shorter, place=inner, left_out=left_out))
    if left_out is not None and len(readings) > 1 and readings[1].place.endswith(_STUDENT):
        readings[:2] = readings[1::-1]  # beside a teacher it is nothing else
    yield from readings
    if left_out is not None:
        yield Candidate(tensors=plain, place=place)
    if list(plain) != list(tensors):
        yield Candidate(tensors=dict(tensors), place=place)


def _common_prefix(names: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """The prefix that stands before every name, if there is one."""
    return next(
        (
            prefix
            for prefix in prefixes
            if names and all(name.startswith(prefix) and name != prefix for name in names)
        ),
        None,
    )


def _nest_of(candidate: Candidate) -> str:
    """The keys of a place without prefixes: `model`; "the whole" at the top."""
    keys, _, _ = candidate.place.rpartition("/")
    return keys or "the whole"
