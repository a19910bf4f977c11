"""trtexec output: what it prints and exports, as samples/common/sampleReporting.cpp writes it."""

import json
import re
from typing import Any, Dict, List, NamedTuple, Optional

_NUMBER = r"([-+\d.eE]+)"


class Summary(NamedTuple):
    """What trtexec prints at the end of a measurement; ms, None or empty where it does not.

    Attributes:
        is_passed: `&&&& PASSED`.
        throughput_qps: Queries a second.
        latency_ms: "min", "max", "mean", "median" and "percentile 99" of host latencies.
        gpu_compute_ms: The same of the GPU alone.
        is_unstable: It warns that the GPU's times vary by more than 1 %.
    """

    is_passed: bool
    throughput_qps: Optional[float]
    latency_ms: Dict[str, float]
    gpu_compute_ms: Dict[str, float]
    is_unstable: bool


class Trace(NamedTuple):
    """Times of each query after warm-up, in ms and in order."""

    latency_ms: List[float]
    compute_ms: List[float]


def summary_from_lines(lines: List[str]) -> Summary:
    """Read what a run printed; other lines are passed over."""
    text = "\n".join(lines)
    throughput = re.search(r"Throughput: " + _NUMBER + " qps", text)
    return Summary(
        is_passed=is_passed(lines),
        throughput_qps=None if throughput is None else float(throughput.group(1)),
        latency_ms=_times(lines, "Latency"),
        gpu_compute_ms=_times(lines, "GPU Compute Time"),
        is_unstable="GPU compute time is unstable" in text,
    )


def is_passed(lines: List[str]) -> bool:
    """Whether the last verdict is PASSED."""
    verdicts = [line for line in lines if line.startswith("&&&& ")]
    return bool(verdicts) and verdicts[-1].startswith("&&&& PASSED ")


def trace_from_text(text: str, warm_up_ms: float) -> Trace:
    """Read a file of `--exportTimes`.

    Up to 8.4 it holds the warm-up too, and "endToEndMs"; such a query is one whose computation
    began before `warm_up_ms` (isNotWarmup of sampleReporting.cpp). From 8.5 on it does not.

    Raises:
        ValueError: It is no such file, or has no query after warm-up.
    """
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("the times are no list")
    kept = [row for row in rows if _is_measured(row, warm_up_ms)]
    if not kept:
        raise ValueError("there is no query after warm-up")
    try:
        return Trace(
            latency_ms=[float(row["latencyMs"]) for row in kept],
            compute_ms=[float(row["computeMs"]) for row in kept],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a query without {error}") from error


def _is_measured(row: Any, warm_up_ms: float) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(row, dict):
        raise ValueError("a query is no object")
    if "endToEndMs" not in row:
        return True
    return bool(row["startComputeMs"] >= warm_up_ms)


def _times(lines: List[str], name: str) -> Dict[str, float]:
    """Numbers of `NAME: min = 1.2 ms, ..., percentile(99%) = 1.9 ms`."""
    pattern = re.compile(r"(?:^|\] )" + name + ": (min = .*)$")
    for line in lines:
        match = pattern.search(line)
        if match is not None:
            found = re.findall(r"([a-z]+(?:\([\d.]+%\))?) = " + _NUMBER + " ms", match.group(1))
            return {_key(key): float(value) for key, value in found}
    return {}


def _key(key: str) -> str:
    return key.replace("(", " ").rstrip("%)")
