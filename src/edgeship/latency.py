"""Latency, memory and work of one artifact, as they were measured where it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one inference takes on a board, and whether that may be believed.

    Percentiles are latencies that were observed, never interpolated: the one at index
    floor(n * p / 100) of the n sorted ones, counted from 0, as MLPerf's LoadGen takes it.

    Attributes:
        p50_ms: After warm-up, one query after the other.
        p90_ms: The same.
        p95_ms: The same.
        p99_ms: The same.
        p95_ci95_ms: 95 % confidence interval of `p95_ms`; None of too few queries to have one.
        cold_ms: The first inference after loading; None where nobody took it.
        load_ms: Loading the model; its file was read before, to check its digest; else None.
        sustained_p95_ms: After the board ran hot; None where the plan does not go on for that.
        queries: That the percentiles are over.
        duration_s: That they took.
        warm_up_queries: Before them, the first inference included.
        threads: Of the runtime.
        governor: Scaling governors of the CPUs while it was measured; empty where none is told.
        frequency_khz: Least and most of any CPU meanwhile.
        temperature_c: The same of the hottest thermal zone.
        is_valid: Whether all was well; `p95_ms` may be held against a budget only then.
        reasons: Why it is not, each as `rule: what was seen`.
    """

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p95_ci95_ms: tuple[float, float] | None
    cold_ms: float | None
    load_ms: float | None
    sustained_p95_ms: float | None
    queries: int
    duration_s: float
    warm_up_queries: int
    threads: int
    governor: tuple[str, ...]
    frequency_khz: tuple[int, int] | None
    temperature_c: tuple[float, float] | None
    is_valid: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {key: _listed(item) for key, item in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Latency:
        """Inverse of `to_json`."""
        return cls(**_frozen(value))


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Resident memory of the process that ran an artifact.

    Attributes:
        peak_bytes: The most that it ever had.
        imported_bytes: What it had after importing the runtime, before it loaded the model.
    """

    peak_bytes: int
    imported_bytes: int

    @property
    def used_bytes(self) -> int:
        """What the model took: this is held against a memory budget."""
        return max(0, self.peak_bytes - self.imported_bytes)

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MemoryUse:
        """Inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Instructions of one inference, counted on an emulated board: work, never a latency.

    Attributes:
        instructions: Of one inference: median.
        spread: Least and most.
        inferences: That were counted, after warm-up.
        cpu: What QEMU calls the emulated CPU, as its option `-cpu` takes it.
    """

    instructions: int
    spread: tuple[int, int]
    inferences: int
    cpu: str

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {key: _listed(item) for key, item in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Work:
        """Inverse of `to_json`."""
        return cls(**_frozen(value))


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Mapping[str, Any]) -> dict[str, Any]:
    """With tuples for the lists that JSON makes of them."""
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
