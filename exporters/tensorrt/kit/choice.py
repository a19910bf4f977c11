"""Choice: which engine to use, by what was measured on this board."""

from typing import Any, Dict, List, NamedTuple, Optional


class Choice(NamedTuple):
    """Name of a graph, or None where no engine passed, and why."""

    graph: Optional[str]
    reason: str


def kept_choice(last: Dict[str, Any], digests: Dict[str, str], *, with_times: bool) -> Choice:
    """The choice of the last report, or of nothing where it is no longer good.

    Args:
        last: The report; {} where there is none.
        digests: SHA-256 of each engine that serves and matches, by graph.
        with_times: Whether a choice between several has to rest on measured times.
    """
    chosen = last.get("recommended")
    rows = {row["name"]: row for row in last.get("graphs", [])}
    is_same = all(
        name in rows and rows[name]["outcome"] == "ok" and rows[name]["engine"]["sha256"] == digest
        for name, digest in digests.items()
    )
    settings = last.get("settings") or {"outcome": "not measured"}
    is_measured = settings.get("outcome") is None or len(rows) == 1
    if chosen not in digests or not is_same or (with_times and not is_measured):
        return Choice(None, "nothing is kept")
    return Choice(chosen, str(last["reason"]))


def choose_engine(
    medians_ms: Dict[str, List[float]], passed: List[str], *, is_device: bool = True
) -> Choice:
    """INT8 only where it was faster than FP16 in every round: FP16 is the more accurate.

    Args:
        medians_ms: Median latencies of each round, by graph; absent where it was not measured.
        passed: Graphs whose engines match the golden pack.
        is_device: Whether the times are a device's; others decide here too, and are not told.
    """
    if not passed:
        return Choice(None, "no engine passed")
    if len(passed) == 1:
        return Choice(passed[0], f"{passed[0]} alone was built here and matches the golden pack")
    fp16, int8 = medians_ms.get("fp16"), medians_ms.get("int8")
    if not fp16 or not int8:
        return Choice("fp16", "FP16 and INT8 were not both measured: INT8 has to be the faster one")
    numbers = f"median up to {max(int8):.3f} ms, FP16 from {min(fp16):.3f}"
    shown = numbers if is_device else "by times that are no latency"
    if max(int8) < min(fp16):
        return Choice("int8", f"INT8 was faster in every round ({shown})")
    return Choice("fp16", f"INT8 is not faster in every round ({shown})")
