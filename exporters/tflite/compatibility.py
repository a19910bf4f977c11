"""Compatibility: which runtimes of a target can run a file, and from which release on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeship.artifact import RuntimeNeed
from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.census import Place, place_of
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    operator_name,
    operators,
    type_name,
)
from edgeship.exporters.tflite.naming import modules_of
from edgeship.exporters.tflite.version_table import first_litert, first_tensorflow, release_key
from edgeship.targets.target import Runtime, RuntimeFact

_OLDEST: Final = {Runtime.TFLITE_RUNTIME: "1.5.0", Runtime.LITERT: "2.0.2"}
_REFUSED: Final[Mapping[str, tuple[tuple[str | None, ...], ...]]] = {
    "DIV": (("INT8",), ("INT16",)),
    "GELU": (("INT16",),),
    "SUM": (("INT16",),),
    "TRANSPOSE_CONV": ((None, "INT8", "FLOAT32"),),
}
"""Types of the first inputs that the kernels of tflite-runtime 2.14.0 refuse though they know the
version (measured), by operator. TensorFlow's versions tell nothing of them."""
_WRONG_BEFORE: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "BATCH_MATMUL": (("INT8",), "2.1.3"),
}
"""What XNNPACK in ai-edge-litert 2.0.2 to 2.1.2 computes wrong: by up to 160 of 255 steps in int8
attention, where 1.4.0, 2.1.3, 2.1.6, 2.2.0 and 2.3.0 agree with the plain kernels (measured)."""


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """What a file needs: one of `any_of`; and why the target's other runtimes cannot run it."""

    any_of: tuple[RuntimeNeed, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Demand:
    """One operator's: a release of a runtime; None where no release is known to have it."""

    place: Place
    version: int
    types: str
    release: str | None


def runtime_compatibility(model: ModelT, runtimes: Sequence[RuntimeFact]) -> Compatibility:
    """Hold what the file needs against what the target's runtimes have.

    Args:
        model: With the versions of `set_versions`.
        runtimes: Of the target, the preferred one first; the order is kept.

    Raises:
        ExportFailed: None of them can run it.
    """
    able: list[RuntimeNeed] = []
    unable: list[tuple[RuntimeFact, list[_Demand]]] = []
    for fact in runtimes:
        demands = list(_demands(model, fact.name))
        unmet = [demand for demand in demands if not _is_met(demand, fact)]
        if unmet:
            unable.append((fact, unmet))
        else:
            releases = [_OLDEST[fact.name], *(demand.release or "" for demand in demands)]
            able.append(RuntimeNeed(runtime=str(fact.name), min=max(releases, key=release_key)))
    if unable and not able:
        raise ExportFailed(*(_problem(fact, unmet[0]) for fact, unmet in unable))
    return Compatibility(
        any_of=tuple(able), notes=tuple(_note(fact, unmet) for fact, unmet in unable)
    )


def _is_met(demand: _Demand, fact: RuntimeFact) -> bool:
    return demand.release is not None and release_key(demand.release) <= release_key(fact.version)


def _demands(model: ModelT, runtime: Runtime) -> Iterator[_Demand]:
    """One for each kind of operator, version and types: the first in execution order."""
    modules = modules_of(model)
    seen = set()
    for subgraph, operator in operators(model):
        name = operator_name(model, operator)
        version = int(model.operatorCodes[operator.opcodeIndex].version)
        types = _input_types(subgraph, operator)
        if (name, version, types) in seen:
            continue
        seen.add((name, version, types))
        is_lite = runtime is Runtime.LITERT
        release = (
            _litert_release(name, version, types)
            if is_lite
            else _tensorflow_release(name, version, types)
        )
        yield _Demand(
            place=place_of(model, subgraph, operator, modules),
            version=version,
            types="/".join(kind for kind in types if kind is not None),
            release=release,
        )


def _litert_release(name: str, version: int, types: tuple[str | None, ...]) -> str | None:
    release = first_litert(name, version)
    wrong, corrected = _WRONG_BEFORE.get(name, ((), ""))
    if release is None or not wrong or not _matches(types, wrong):
        return release
    return max(release, corrected, key=release_key)


def _tensorflow_release(name: str, version: int, types: tuple[str | None, ...]) -> str | None:
    if any(_matches(types, refused) for refused in _REFUSED.get(name, ())):
        return None
    return first_tensorflow(name, version)


def _matches(types: tuple[str | None, ...], pattern: tuple[str | None, ...]) -> bool:
    """Whether the first inputs have these types; None in a pattern is any."""
    return len(types) >= len(pattern) and all(
        wanted is None or wanted == found for wanted, found in zip(pattern, types, strict=False)
    )


def _input_types(subgraph: SubGraphT, operator: OperatorT) -> tuple[str | None, ...]:
    indices = () if operator.inputs is None else operator.inputs
    return tuple(type_name(subgraph.tensors[index]) if index >= 0 else None for index in indices)


def _reason(fact: RuntimeFact, demand: _Demand) -> str:
    what = f"{demand.place} (version {demand.version}, {demand.types})"
    if demand.release is None:
        return f"it has no kernel for {what}"
    return f"{what} needs {_named(fact.name, demand.release)}"


def _named(runtime: Runtime, release: str) -> str:
    return f"{'TensorFlow' if runtime is Runtime.TFLITE_RUNTIME else 'LiteRT'} {release}"


def _note(fact: RuntimeFact, unmet: Sequence[_Demand]) -> str:
    reasons = "; ".join(_reason(fact, demand) for demand in unmet[:3])
    more = f"; and {len(unmet) - 3} more" if len(unmet) > 3 else ""
    return f"{fact.name} {fact.version} cannot run this file: {reasons}{more}"


def _problem(fact: RuntimeFact, demand: _Demand) -> Problem:
    place = demand.place
    return Problem(
        where=f"tflite: {f'module {place.module}' if place.module else place.tensor}",
        what=f"{fact.name} {fact.version} cannot run {place.operator}",
        expected="a runtime of the target that can",
        found=_reason(fact, demand),
        remedy="put another operator in its place, or choose a target with a newer runtime",
    )
