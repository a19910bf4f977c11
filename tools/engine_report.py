"""Engine report: what a board says of the engines that it built from a kit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeship.errors import IntegrityRefused, Problem
from edgeship.evidence import Evidence
from edgeship.latency import Latency
from edgeship.measurements import Failure
from edgeship.vocabulary import Place, Rung

SCHEMA: Final = 2
COMMAND: Final = "edgeship evidence import"
RUNTIME: Final = "tensorrt"
_OK: Final = "ok"
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """`engine_report.json` of a kit.

    Attributes:
        artifact_id: Of the kit that the engines were built from.
        recommended: Name of the graph whose engine serves; None where none passed.
        reason: Why that one.
        evidence: One for each graph, as the board says it. Its place is `device` only where the
            program found nothing that speaks against one; what another program than TensorRT did
            in its place is a stand-in, which proves no engine.
    """

    artifact_id: str
    recommended: str | None
    reason: str
    evidence: tuple[Evidence, ...]


def read_engine_report(file: Path) -> EngineReport:
    """Read what `build_engine.py` wrote on a board.

    Raises:
        IntegrityRefused: No report of schema 2.
    """
    try:
        value = json.loads(file.read_bytes())
        if value["schema"] != SCHEMA:
            message = f"schema {value['schema']!r}"
            raise ValueError(message)
        return EngineReport(
            artifact_id=str(value["artifact_id"]),
            recommended=value["recommended"],
            reason=str(value["reason"]),
            evidence=tuple(_evidence(value, graph) for graph in value["graphs"]),
        )
    except (OSError, *_UNREADABLE) as error:
        problem = Problem(
            where=str(file),
            what="this is no engine report that can be read",
            expected=f"engine_report.json of schema {SCHEMA}, as build_engine.py writes it",
            found=f"{type(error).__name__}: {error}",
            remedy="fetch it from the board again",
        )
        raise IntegrityRefused(problem) from error


def _evidence(value: Mapping[str, Any], graph: Mapping[str, Any]) -> Evidence:
    board, tensorrt = value["board"], value["tensorrt"]
    known = {
        "runtime": RUNTIME,
        "version": tensorrt["version"],
        "graph": graph["name"],
        "device": board["model"],
        "board": board["model"],
        "os": board["l4t"] or f"{board['machine']} {board['kernel']}",
        "gpu": f"compute capability {tensorrt['sm']}",
        "power_mode": board["power_mode"],
    }
    comparison = graph.get("comparison")
    cases = {case["case"] for case in comparison["comparisons"]} if comparison else set()
    doubts = {"emulated": board["emulated"], "instead": tensorrt["stand_in"]}
    known |= doubts
    is_stand_in = doubts["instead"] is not None
    is_timed = not any(doubts.values())  # time that no device took is no latency
    latency = _latency(value["settings"] or {}, graph) if is_timed else None
    return Evidence(
        rung=Rung.EXPORTED if is_stand_in else _rung(graph, latency),
        place=Place.DEVICE if doubts["emulated"] is None else Place.EMULATED,
        stand_in=is_stand_in,
        where={key: str(item) for key, item in known.items() if item is not None},
        metrics={},
        samples=len(cases - {"all"}),
        ci95=None,
        data_sha256="",
        command=COMMAND,
        at=str(value["at"]),
        latency=latency,
        failure=_failure(graph),
    )


def _rung(graph: Mapping[str, Any], latency: Latency | None) -> Rung:
    """An engine that was built and does not match ran all the same."""
    if graph["outcome"] != _OK:
        return Rung.RUNS if graph.get("comparison") else Rung.EXPORTED
    return Rung.TIMED if latency is not None and latency.is_valid else Rung.MATCHES


def _failure(graph: Mapping[str, Any]) -> Failure | None:
    if graph["outcome"] == _OK:
        return None
    comparison = graph.get("comparison") or {}
    said = graph.get("message") or comparison.get("message") or "no more is known"
    parts = [f"the {graph['name']} engine: {graph['outcome']}: {said}", comparison.get("diagnosis")]
    detail = "; ".join(part for part in parts if part)
    return Failure(outcome=str(graph["outcome"]), detail=detail)


def _latency(settings: Mapping[str, Any], graph: Mapping[str, Any]) -> Latency | None:
    found = graph.get("latency")
    if found is None:
        return None
    is_stable = bool(graph["is_stable"])
    return Latency(
        p50_ms=float(found["p50_ms"]),
        p90_ms=float(found["p90_ms"]),
        p95_ms=float(found["p95_ms"]),
        p99_ms=float(found["p99_ms"]),
        p95_ci95_ms=None,
        cold_ms=None,
        load_ms=None,
        sustained_p95_ms=None,
        queries=int(found["queries"]),
        duration_s=float(settings["duration_s"]) * int(settings["repeats"]),
        warm_up_queries=0,
        threads=1,
        governor=(),
        frequency_khz=None,
        temperature_c=None,
        is_valid=is_stable,
        reasons=() if is_stable else ("unstable: the GPU's times vary by more than 1 %",),
    )
