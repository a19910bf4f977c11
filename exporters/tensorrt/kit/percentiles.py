"""Percentiles of latencies, as edgeship takes them everywhere."""

from typing import Dict, List, Optional

_WANTED = (50, 90, 95, 99)
_UNSTABLE = 0.01
"""Coefficient of variation of the GPU's times above which trtexec calls them unstable
(samples/common/sampleReporting.cpp)."""


def percentile(ordered: List[float], wanted: int) -> float:
    """The value at index floor(n * wanted / 100), counted from 0: never interpolated.

    As MLPerf's LoadGen takes it.
    """
    return ordered[min(len(ordered) - 1, len(ordered) * wanted // 100)]


def percentiles_ms(values: List[float]) -> Dict[str, float]:
    """{"p50_ms", "p90_ms", "p95_ms", "p99_ms"}."""
    ordered = sorted(values)
    return {f"p{wanted}_ms": round(percentile(ordered, wanted), 6) for wanted in _WANTED}


def is_stable(values: List[float]) -> Optional[bool]:
    """Whether their coefficient of variation is 1 % at most; None of fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return bool(variance**0.5 <= _UNSTABLE * mean)
