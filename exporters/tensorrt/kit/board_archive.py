"""Board archive: edgeship-board.pyz of the kit, which runs engines against the golden pack."""

import json
import sys
from typing import Any, Dict, List

from edgeship.exporters.tensorrt.kit.kit_file import Kit
from edgeship.exporters.tensorrt.kit.process import run_process
from edgeship.exporters.tensorrt.kit.stopped import EXIT_STATUSES, Stopped

_GRACE_S = 60.0
"""A choice: the archive ends its own work at the deadline, and then says so."""
_OUTCOMES: Dict[str, str] = {
    "no-runtime": "no-tensorrt",
    "wrong-numpy": "no-numpy",
    "illegal-instruction": "killed",
}
"""The archive's outcomes that have another name here."""

Event = Dict[str, Any]


def run_archive(kit: Kit, arguments: List[str], deadline_s: float) -> List[Event]:
    """Its events, the last of which is "end", whatever its outcome.

    Args:
        kit: Its archive is run.
        arguments: Command and options.
        deadline_s: Of the work.
    """
    command = [sys.executable, kit.board_archive, *arguments, "--deadline", f"{deadline_s:g}"]
    ended = run_process(command, deadline_s + _GRACE_S, has_open_stdin=True)
    events = [json.loads(line) for line in ended.lines if line.startswith('{"event": ')]
    if not events or events[-1]["event"] != "end":
        said = ended.lines[-1] if ended.lines else "nothing"
        message = f"edgeship-board.pyz ended with status {ended.status}: {said}"
        events.append({"event": "end", "outcome": "failed", "message": message})
    return events


def stopped_by(end: Event) -> Stopped:
    """The error that the archive's last event means."""
    outcome = _OUTCOMES.get(end["outcome"], end["outcome"])
    return Stopped(outcome if outcome in EXIT_STATUSES else "failed", str(end["message"]))
