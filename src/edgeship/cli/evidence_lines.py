"""Evidence lines: what no column of a table says of a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeship.artifact import Manifest
from edgeship.evaluate.rates import rates_line
from edgeship.evaluate.speed import speed_line
from edgeship.evidence import Evidence
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Format, Metric, Place, Rung

_LINTED: Final = "findings of the lints"
"""In a note of a kit, for each of its graphs."""


def host_lines(item: PlannedArtifact, evidence: Evidence) -> Iterator[str]:
    """What no column of the table says of a measurement by which accuracy is judged."""
    worst, speed, metrics = evidence.worst_class, evidence.speed, evidence.metrics
    if Metric.KLD in metrics:
        yield (
            f"language: {item.name}: perplexity {metrics[Metric.PERPLEXITY]:.3f}, float "
            f"{metrics[Metric.REFERENCE_PERPLEXITY]:.3f}; KL divergence {metrics[Metric.KLD]:.5f} "
            f"nats a token; the same most likely token for {100 * metrics[Metric.AGREEMENT]:.2f} % "
            f"({evidence.samples} tokens)"
        )
    if worst is not None and worst.drop > 0:
        yield (
            f"worst class: {item.name}: {worst.name} {100 * worst.top1:.1f} %, "
            f"float {100 * worst.reference_top1:.1f} % "
            f"({worst.samples} samples, {evidence.where.get('runtime', evidence.place)})"
        )
    if speed is not None:
        line = speed_line(
            speed.float_ratio,
            speed.spread,
            outside=speed.outside_delegate,
            where=evidence.where,
            threads=speed.threads,
            precision=item.recipe.precision,
        )
        yield f"speed: {item.name}: {line}"
        if speed.delegates:
            yield f"delegates: {item.name}: {speed.delegates}"
    if evidence.rates is not None:
        line = rates_line(evidence.rates, where=evidence.where)
        yield f"speed: {item.name}: {line}"


def board_lines(item: PlannedArtifact, evidence: Evidence) -> Iterator[str]:
    """What a board said beside its metrics, each number with where it comes from."""
    if evidence.place is Place.HOST:
        return
    origin = f"{evidence.origin}, {evidence.where.get('device', 'a board')}"
    if "graph" in evidence.where:
        use = "" if evidence.serves else ", not the engine that serves there"
        origin += f", {evidence.where['graph']}{use}"
    if evidence.failure is not None and not evidence.serves:
        yield f"not judged: {item.name}: {evidence.failure.detail} ({origin})"
    metrics, memory, latency, work = (
        evidence.metrics,
        evidence.memory,
        evidence.latency,
        evidence.work,
    )
    if Metric.PERPLEXITY in metrics:
        yield (
            f"language: {item.name}: perplexity {metrics[Metric.PERPLEXITY]:.3f}, float "
            f"{metrics[Metric.REFERENCE_PERPLEXITY]:.3f} ({evidence.samples} tokens, {origin})"
        )
    if memory is not None:
        used, peak = text_from_bytes(memory.used_bytes), text_from_bytes(memory.peak_bytes)
        imported = text_from_bytes(memory.imported_bytes)
        line = f"{used}: {peak} at its peak less {imported} of the imported runtime"
        yield f"memory: {item.name}: {line} ({origin})"
    if latency is not None:
        validity = "VALID" if latency.is_valid else f"INVALID: {'; '.join(latency.reasons)}"
        yield f"latency: {item.name}: p95 {latency.p95_ms:.3g} ms, {validity} ({origin})"
    if work is not None:
        yield (
            f"work: {item.name}: {work.instructions / 1e6:.2f} million instructions an inference, "
            f"no latency ({origin}, {work.cpu})"
        )


def kit_lines(item: PlannedArtifact, manifest: Manifest) -> Iterator[str]:
    """How far a kit was proven, step by step; nothing for other artifacts."""
    if manifest.format is not Format.TENSORRT:
        return
    linted = "; ".join(note for note in manifest.notes if _LINTED in note)
    yield f"step 1, lints: {item.name}: {linted or 'not run'}"
    stand_ins = [one for one in manifest.evidence if one.stand_in and one.place is Place.HOST]
    lifted = "; ".join(_stand_in(one) for one in stand_ins)
    yield f"step 2, stand-in: {item.name}: {lifted or 'not run'}"
    boards = [one for one in manifest.evidence if one.place is not Place.HOST]
    devices = [one for one in boards if one.place is Place.DEVICE and not one.stand_in]
    ran = [one for one in devices if one.rung is not Rung.EXPORTED]
    built = ", ".join(dict.fromkeys(one.where.get("device", "a board") for one in ran))
    where = f"as reported, on {built}" if built else "by build_engine.py, on the board"
    yield f"step 3, engine: {item.name}: not built here; {where}"
    found = "; ".join(map(_device, devices)) or "not run"
    others = "" if len(boards) == len(devices) else " (an emulated board or a stand-in is none)"
    yield f"step 4, device: {item.name}: {found}{others}"


def _stand_in(evidence: Evidence) -> str:
    """What accuracy was found in it."""
    named = ", ".join(f"{metric} {value:.4f}" for metric, value in evidence.metrics.items())
    runtime = f"{evidence.where.get('runtime', '?')} {evidence.where.get('version', '')}".rstrip()
    return f"{named} ({evidence.samples} samples, {runtime})"


def _device(evidence: Evidence) -> str:
    """How far an engine got, on what and when."""
    where = evidence.where
    use = "" if evidence.serves else ", set aside"
    engine = f"{where['graph']}{use}: " if "graph" in where else ""
    version = f"TensorRT {where.get('version', '?')}"
    state = evidence.rung if evidence.failure is None else evidence.failure.outcome
    return f"{engine}{state} on {where.get('device', 'a board')}, {version}, {evidence.at}"
