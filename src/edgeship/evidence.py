"""Evidence: one measured fact about an artifact, with its rung and its place."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgeship.latency import Latency, MemoryUse, Work
from edgeship.measurements import ClassShare, Failure, Rates, SpeedShare
from edgeship.vocabulary import Metric, Place, Rung

_CPU_INFO: Final = Path("/proc/cpuinfo")
_SERVES: Final = "serves"
_NO: Final = "no"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One measured fact, as it stands in a manifest.

    Attributes:
        rung: How far the artifact was proven.
        place: Where: this host, an emulated board, a device.
        stand_in: True if another runtime than the target's own ran it: then no rung counts.
        where: `cpu`, `os`, `runtime`, `version` of what ran it.
        metrics: By `Metric`.
        samples: How many samples the metrics are over.
        ci95: 95 % confidence interval of the first metric, where it has one.
        data_sha256: Identity of those samples.
        command: The command that obtained it.
        at: When, in UTC (RFC 3339).
        worst_class: The class that lost most against the float model, where classes are known.
        speed: Against the float file, where that is another one.
        rates: Of a language model that was timed.
        memory: Of the process that ran it.
        latency: Of a board, never of an emulated one.
        work: Of an emulated board that counts instructions.
        failure: What ended it on a board, where something did.
    """

    rung: Rung
    place: Place
    stand_in: bool
    where: Mapping[str, str]
    metrics: Mapping[Metric, float]
    samples: int
    ci95: tuple[float, float] | None
    data_sha256: str
    command: str
    at: str
    worst_class: ClassShare | None = None
    speed: SpeedShare | None = None
    rates: Rates | None = None
    memory: MemoryUse | None = None
    latency: Latency | None = None
    work: Work | None = None
    failure: Failure | None = None

    @property
    def origin(self) -> str:
        """Place, runtime and version, for people."""
        stand_in = ["stand-in"] if self.stand_in else []
        runtime = " ".join(self.where[key] for key in ("runtime", "version") if key in self.where)
        return ", ".join([str(self.place), *stand_in, runtime]).rstrip(", ")

    @property
    def serves(self) -> bool:
        """False of an engine that the board itself set aside for another of the same artifact."""
        return self.where.get(_SERVES) != _NO

    def set_aside(self) -> Evidence:
        """The same of an engine that does not serve."""
        return replace(self, where={**self.where, _SERVES: _NO})

    def with_metrics(self, metrics: Mapping[Metric, float]) -> Evidence:
        """The same with other metrics."""
        return replace(self, metrics=metrics)

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        parts = {key: getattr(self, key) for key in _PARTS}
        return {key: part.to_json() for key, part in parts.items() if part is not None} | {
            "rung": str(self.rung),
            "place": str(self.place),
            "stand_in": self.stand_in,
            "where": dict(self.where),
            "metrics": {str(key): value for key, value in self.metrics.items()},
            "samples": self.samples,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "data_sha256": self.data_sha256,
            "command": self.command,
            "at": self.at,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """Inverse of `to_json`."""
        ci95 = value["ci95"]
        parts = {key: kind.from_json(value[key]) for key, kind in _PARTS.items() if key in value}
        return cls(
            rung=Rung(value["rung"]),
            place=Place(value["place"]),
            stand_in=value["stand_in"],
            where=value["where"],
            metrics={Metric(key): number for key, number in value["metrics"].items()},
            samples=value["samples"],
            ci95=None if ci95 is None else (ci95[0], ci95[1]),
            data_sha256=value["data_sha256"],
            command=value["command"],
            at=value["at"],
            **parts,
        )


_PARTS: Final[Mapping[str, Any]] = {
    "worst_class": ClassShare,
    "speed": SpeedShare,
    "rates": Rates,
    "memory": MemoryUse,
    "latency": Latency,
    "work": Work,
    "failure": Failure,
}
"""Keys of what evidence may hold, with the class that reads and writes each."""


def best_evidence(evidence: tuple[Evidence, ...]) -> Evidence | None:
    """The one to judge accuracy by: a device before an emulation before the host, then the latest.

    Evidence of a stand-in counts only where there is no other.
    """
    measured = [item for item in evidence if item.metrics]
    places = list(Place)
    return max(
        reversed(measured),  # of equal ones max() takes the first: the one measured last
        key=lambda item: (not item.stand_in, places.index(item.place), item.at),
        default=None,
    )


def evidence_by_runtime(evidence: tuple[Evidence, ...]) -> dict[str, Evidence]:
    """The best evidence of each runtime, by `where["runtime"]`, in the order of its measuring.

    It is among those with the most samples: a board may have seen a few of them only. Evidence of
    stand-ins counts only where there is no other.
    """
    measured = [item for item in evidence if item.metrics]
    own = [item for item in measured if not item.stand_in] or measured
    found = {}
    for name in dict.fromkeys(item.where.get("runtime", "") for item in own):
        within = [item for item in own if item.where.get("runtime", "") == name]
        most = max(item.samples for item in within)
        best = best_evidence(tuple(item for item in within if item.samples == most))
        assert best is not None  # the name is that of one of them
        found[name] = best
    return found


def samples_on_boards(evidence: tuple[Evidence, ...]) -> list[Evidence]:
    """What boards measured with fewer samples than `evidence_by_runtime` has of that runtime."""
    best = evidence_by_runtime(evidence)
    return [
        item
        for item in evidence
        if item.metrics
        and not item.stand_in
        and item.place is not Place.HOST
        and item.samples < best[item.where.get("runtime", "")].samples
    ]


def utc_now() -> str:
    """The time as in `Evidence.at`, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_host() -> dict[str, str]:
    """`cpu` and `os` of this machine, as in `Evidence.where`."""
    return {"cpu": _cpu_name(), "os": f"{platform.system()} {platform.machine()}"}


def _cpu_name() -> str:
    """The CPU's marketing name (Linux: first `model name` of /proc/cpuinfo), else its family."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
