"""Evidence lines: what no column of a table says of a measurement."""

from __future__ import annotations

from collections.abc import Iterator

from edgeship.evaluate.rates import rates_line
from edgeship.evaluate.speed import speed_line
from edgeship.evidence import Evidence
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Metric, Place


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
    if evidence.rates is not None:
        line = rates_line(evidence.rates, where=evidence.where)
        yield f"speed: {item.name}: {line}"


def board_lines(item: PlannedArtifact, evidence: Evidence) -> Iterator[str]:
    """What a board said beside its metrics, each number with where it comes from."""
    if evidence.place is Place.HOST:
        return
    origin = f"{evidence.origin}, {evidence.where.get('device', 'a board')}"
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
