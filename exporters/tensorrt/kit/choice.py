"""Choice: which engine to use, by what was measured on this board."""

from typing import Any, Dict, List, NamedTuple, Optional


class Choice(NamedTuple):
    """Name of a graph, or None where no engine passed, and why."""

    graph: Optional[str]
    reason: str


def choose_engine(medians_ms: Dict[str, List[float]], passed: List[str]) -> Choice:
    """INT8 only where it was faster than FP16 in every round: FP16 is the more accurate.

    Args:
        medians_ms: Median latencies of each round, by graph; absent where it was not measured.
        passed: Graphs whose engines match the golden pack.
    """
    if not passed:
        return Choice(None, "no engine passed")
    if len(passed) == 1:
        return Choice(passed[0], f"{passed[0]} alone was built here and matches the golden pack")
    fp16, int8 = medians_ms.get("fp16"), medians_ms.get("int8")
    if not fp16 or not int8:
        return Choice("fp16", "FP16 and INT8 were not both measured: INT8 has to be the faster one")
    numbers: Dict[str, Any] = {"fast": max(int8), "slow": min(fp16)}
    if max(int8) < min(fp16):
        text = "INT8 was faster in every round (median up to {fast:.3f} ms, FP16 from {slow:.3f})"
        return Choice("int8", text.format(**numbers))
    text = "INT8 is not faster in every round (median up to {fast:.3f} ms, FP16 from {slow:.3f})"
    return Choice("fp16", text.format(**numbers))
