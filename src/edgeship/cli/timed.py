"""The result of `edgeship bench`: latencies of devices, instructions of emulated boards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edgeship.budget import worst_exit_code
from edgeship.cli.result import Result, command_value, item_value
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.errors import EdgeshipError, ExitCode, Problem
from edgeship.latency import Latency, Work
from edgeship.pipeline.selection import short_name
from edgeship.pipeline.timing import Timing
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Verdict

_NOTHING: Final = "-"
_MILLION: Final = 1e6


def timed(timings: Sequence[Timing]) -> Result:
    """A row for each artifact in each runtime."""
    codes = [code for timing in timings for code in timing.exit_codes]
    problems = list(dict.fromkeys(_problems(timings)))
    return Result(
        headers=(
            "target",
            "artifact",
            "runtime",
            "place",
            "p50",
            "p90",
            "p95 (95 % interval)",
            "p99",
            "cold",
            "memory",
            "instructions",
            "outcome",
        ),
        rows=[_row(timing) for timing in timings],
        lines=[*(line for timing in timings for line in _lines(timing)), *_ratios(timings)],
        problems=problems,
        value=command_value("bench", codes)
        | {
            "timings": [_value(timing) for timing in timings],
            "problems": [problem.to_json() for problem in problems],
        },
        exit_code=worst_exit_code(codes),
    )


def absence(error: EdgeshipError | None) -> str:
    """What stands in place of an outcome where a board gave none."""
    if isinstance(error, ConnectionFailed):
        return "no answer"
    is_refused = error is not None and error.exit_code is ExitCode.INTEGRITY
    return "refused" if is_refused else "not run"


def _row(timing: Timing) -> tuple[str, ...]:
    evidence = timing.evidence
    head = (timing.item.target.name, short_name(timing.item), _title(timing))
    if evidence is None:
        return (*head, *(_NOTHING,) * 8, absence(timing.error))
    latency, memory, work = evidence.latency, evidence.memory, evidence.work
    return (
        *head,
        str(evidence.place),
        *_latency_cells(latency),
        _NOTHING if memory is None else text_from_bytes(memory.used_bytes),
        _NOTHING if work is None else f"{work.instructions / _MILLION:.2f} M",
        _outcome(timing),
    )


def _title(timing: Timing) -> str:
    """Package and version, as far as they are known."""
    where = {} if timing.evidence is None else timing.evidence.where
    known = [where[key] for key in ("runtime", "version") if key in where]
    return " ".join(known) or timing.runtime or _NOTHING


def _outcome(timing: Timing) -> str:
    evidence = timing.evidence
    assert evidence is not None  # the caller has looked
    if evidence.failure is not None:
        return evidence.failure.outcome
    if evidence.latency is None:
        return "counted" if evidence.work is not None else "untimed"
    return "VALID" if evidence.latency.is_valid else "INVALID"


def _latency_cells(latency: Latency | None) -> tuple[str, ...]:
    if latency is None:
        return (_NOTHING,) * 5
    p95 = f"{latency.p95_ms:.3g} ms"
    if latency.p95_ci95_ms is not None:
        low, high = latency.p95_ci95_ms
        p95 += f" ({low:.3g} to {high:.3g})"
    others = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.cold_ms)
    p50, p90, p99, cold = (f"{value:.3g} ms" for value in others)
    return p50, p90, p95, p99, cold


def _lines(timing: Timing) -> Iterator[str]:
    name, evidence = timing.item.name, timing.evidence
    if evidence is not None and evidence.failure is not None:
        yield f"{evidence.failure.outcome}: {name}: {evidence.failure.detail}"
    for reason in timing.reasons:
        yield f"invalid: {name} in {_title(timing)}: {reason}"
    for judgement in timing.judgements:
        if judgement.verdict is Verdict.FAIL and judgement.quantity != "device":
            yield f"fail: {name}: {judgement.detail}"


def _ratios(timings: Sequence[Timing]) -> Iterator[str]:
    """Of each artifact's instructions by those of the fp32 file in the same runtime."""
    works = {_work_key(timing): work for timing in timings if (work := _work(timing)) is not None}
    for timing in timings:
        work = _work(timing)
        target, format_, precision, runtime = _work_key(timing)
        base = works.get((target, format_, "fp32", runtime))
        if work is None:
            continue
        share = ""
        if base is not None and precision != "fp32":
            share = f", {work.instructions / base.instructions:.2f} of fp32's"
        yield (
            f"work: {timing.item.name} in {_title(timing)}: "
            f"{work.instructions / _MILLION:.2f} million instructions an inference "
            f"on QEMU's {work.cpu}{share}; this is no latency"
        )
    if works:
        yield "note: an emulated board has no latency: time a real one with --device NAME"


def _work_key(timing: Timing) -> tuple[str, str, str, str | None]:
    item = timing.item
    return item.target.name, str(item.format), item.recipe.precision, timing.runtime


def _work(timing: Timing) -> Work | None:
    return None if timing.evidence is None else timing.evidence.work


def _problems(timings: Sequence[Timing]) -> Iterator[Problem]:
    for timing in timings:
        if timing.error is not None:
            yield from timing.error.problems


def _value(timing: Timing) -> dict[str, object]:
    evidence, error = timing.evidence, timing.error
    return item_value(timing.item) | {
        "runtime": timing.runtime,
        "evidence": None if evidence is None else evidence.to_json(),
        "reasons": list(timing.reasons),
        "judgements": [judgement.to_json() for judgement in timing.judgements],
        "exit_code": int(worst_exit_code(timing.exit_codes)),
        "problems": [] if error is None else [problem.to_json() for problem in error.problems],
    }
