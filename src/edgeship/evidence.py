"""Evidence: one measured fact about an artifact, with its rung and its place."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgeship.measurements import ClassShare, Rates, SpeedShare
from edgeship.vocabulary import Metric, Place, Rung

_CPU_INFO: Final = Path("/proc/cpuinfo")


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

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        worst = {} if self.worst_class is None else {"worst_class": self.worst_class.to_json()}
        speed = {} if self.speed is None else {"speed": self.speed.to_json()}
        rates = {} if self.rates is None else {"rates": self.rates.to_json()}
        return (
            worst
            | speed
            | rates
            | {
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
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """Inverse of `to_json`."""
        ci95, worst, speed = value["ci95"], value.get("worst_class"), value.get("speed")
        rates = value.get("rates")
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
            worst_class=None if worst is None else ClassShare(**worst),
            speed=None if speed is None else SpeedShare.from_json(speed),
            rates=None if rates is None else Rates.from_json(rates),
        )


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

    Evidence of stand-ins counts only where there is no other.
    """
    measured = [item for item in evidence if item.metrics]
    own = [item for item in measured if not item.stand_in] or measured
    found = {}
    for name in dict.fromkeys(item.where.get("runtime", "") for item in own):
        best = best_evidence(tuple(item for item in own if item.where.get("runtime", "") == name))
        assert best is not None  # the name is that of one of them
        found[name] = best
    return found


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
