"""Compare: an engine against the golden pack, by the board archive."""

from typing import Any, Dict, List, NamedTuple, Optional

from edgeship.exporters.tensorrt.kit.board_archive import Event, run_archive, stopped_by
from edgeship.exporters.tensorrt.kit.kit_file import Graph, Kit
from edgeship.exporters.tensorrt.kit.stopped import Stopped

_OF_ARTIFACT = "artifact-on-host"


class Comparison(NamedTuple):
    """What a golden pack says of an engine.

    Attributes:
        judged: Comparisons that decide.
        failed: How many of them fail.
        message: The first that fails; None where none does.
        diagnosis: What would explain it.
        comparisons: Each with "case", "name", "of", "kind", "difference", "limit", "is_ok".
    """

    judged: int
    failed: int
    message: Optional[str]
    diagnosis: Optional[str]
    comparisons: List[Dict[str, Any]]


def compare_engine(kit: Kit, graph: Graph, record_path: str, deadline_s: float) -> Comparison:
    """Run every golden case in an engine.

    The pack holds outputs of the float model, which every graph is held against, and of the
    artifact on the host: the INT8 graph where there is one. An FP16 engine rounds otherwise and is
    not held against those.

    Raises:
        Stopped: The engine could not be run.
    """
    arguments = ["smoke", kit.directory, "--runtime", "tensorrt", "--program", record_path]
    events = run_archive(kit, arguments, deadline_s)
    end = events[-1]
    if end["outcome"] not in ("ok", "mismatch"):
        raise stopped_by(end)
    is_of_pack = graph.precision == "int8" or all(one.precision != "int8" for one in kit.graphs)
    cases = [_without_event(event) for event in events if event["event"] == "case"]
    deciding = [
        event
        for event in cases
        if event["is_ok"] is not None and (is_of_pack or event["of"] != _OF_ARTIFACT)
    ]
    if not any(event["of"] == "float-model" for event in deciding):
        raise Stopped("damaged", "the golden pack has no output of the float model")
    failed = [event for event in deciding if not event["is_ok"]]
    return Comparison(
        judged=len(deciding),
        failed=len(failed),
        message=_sentence(failed[0]) if failed else None,
        diagnosis=end.get("diagnosis") if failed else None,
        comparisons=cases,
    )


def _without_event(event: Event) -> Dict[str, Any]:
    return {key: value for key, value in event.items() if key != "event"}


def _sentence(event: Dict[str, Any]) -> str:
    """What is wrong with one output."""
    said = event["message"]
    if said is None:
        said = "it differs by {difference:.4g}, more than {limit:.4g} ({kind})".format(**event)
    return "{name} of case {case}, against {of}: {said}".format(said=said, **event)
