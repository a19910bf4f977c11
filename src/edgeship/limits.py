"""Limits: size, latency, memory and what failed on a board, held against the budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeship.artifact import Manifest
from edgeship.budget import Budget, Judgement, failed, passed, unmeasured
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Place


def judge_size(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    """Bytes of the model's files."""
    if budget.size_bytes is None:
        return
    over = manifest.size_bytes - budget.size_bytes
    limit, found = text_from_bytes(budget.size_bytes), text_from_bytes(manifest.size_bytes)
    if over > 0:
        detail = f"size {found} is {text_from_bytes(over)} over the limit of {limit}"
        yield failed("size", detail, ExitCode.BUDGET)
    else:
        yield passed("size", f"size {found} of {limit}")


def judge_latency(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    """The 95th percentile in each runtime that a board was timed in; an emulated one never is."""
    if budget.latency_p95_ms is None:
        return
    limit_ms = budget.latency_p95_ms
    timed = _of_places(
        (item for item in manifest.evidence if item.latency is not None), _timed_places(budget)
    )
    if not timed:
        detail = f"latency_p95 (limit {limit_ms:g} ms) was not measured"
        yield unmeasured("latency_p95", detail, budget)
    for evidence in timed:
        latency = evidence.latency
        assert latency is not None  # chosen so above
        counted = f"{latency.p95_ms:.3g} ms, limit {limit_ms:g} ms ({_source(evidence)})"
        if not latency.is_valid:
            reasons = "; ".join(latency.reasons)
            detail = f"latency_p95 {counted} is no valid measurement: {reasons}"
            yield unmeasured("latency_p95", detail, budget)
        elif latency.p95_ms > limit_ms:
            yield failed("latency_p95", f"latency_p95 {counted}", ExitCode.BUDGET)
        else:
            yield passed("latency_p95", f"latency_p95 {counted}")


def judge_memory(manifest: Manifest, budget: Budget) -> Iterator[Judgement]:
    """Peak less the imported runtime, in each runtime that said it."""
    if budget.memory_bytes is None:
        return
    limit = text_from_bytes(budget.memory_bytes)
    places = tuple(Place) if budget.evidence is None else (budget.evidence,)
    measured = _of_places((item for item in manifest.evidence if item.memory is not None), places)
    if not measured:
        yield unmeasured("memory", f"memory (limit {limit}) was not measured", budget)
    for evidence in measured:
        memory = evidence.memory
        assert memory is not None  # chosen so above
        detail = f"memory {text_from_bytes(memory.used_bytes)}, limit {limit} ({_source(evidence)})"
        if memory.used_bytes > budget.memory_bytes:
            yield failed("memory", detail, ExitCode.BUDGET)
        else:
            yield passed("memory", detail)


def judge_boards(found: Iterable[Evidence]) -> Iterator[Judgement]:
    """What the last test on each board said of what serves there, where it failed."""
    for evidence in found:
        if evidence.failure is not None and evidence.serves:
            detail = f"{evidence.failure.detail} ({_source(evidence)})"
            yield failed("device", detail, ExitCode.DEVICE_MISMATCH)


def _timed_places(budget: Budget) -> tuple[Place, ...]:
    """Latency of the host counts only where the budget asks for it."""
    return (Place.HOST,) if budget.evidence is Place.HOST else (Place.DEVICE,)


def _of_places(evidence: Iterable[Evidence], places: tuple[Place, ...]) -> list[Evidence]:
    """The last one of each runtime that serves, at the place that is closest to a device."""
    best: dict[str, Evidence] = {}
    order = list(Place)
    for item in evidence:
        name = item.where.get("runtime", "")
        old = best.get(name)
        if item.place not in places or not item.serves:
            continue
        if old is None or order.index(item.place) >= order.index(old.place):
            best[name] = item
    return list(best.values())


def _source(evidence: Evidence) -> str:
    device = evidence.where.get("device")
    return evidence.origin if device is None else f"{evidence.origin}, {device}"
