"""Main: build_engine.py, or the process that one starts for what may die."""

import sys
from typing import Any, Dict, List

from edgeship.exporters.tensorrt.kit.arguments import parse
from edgeship.exporters.tensorrt.kit.child import OPTION, run_child
from edgeship.exporters.tensorrt.kit.events import standard_events
from edgeship.exporters.tensorrt.kit.process import end_with_parent
from edgeship.exporters.tensorrt.kit.stopped import EXIT_STATUSES, Stopped
from edgeship.exporters.tensorrt.kit.work import Work


def main(arguments: List[str]) -> int:
    """Run it; the exit status is that of its outcome, and the last event says it."""
    if arguments[:1] == [OPTION]:
        return run_child(arguments[1:])
    events = standard_events()
    values: Dict[str, Any]
    try:
        options = parse(arguments)
        if options.end_with_parent:
            end_with_parent()
        work = Work(options, [sys.executable, sys.argv[0], OPTION], events)
        values = work.run()
    except Stopped as error:
        values = {"outcome": error.outcome, "message": error.message}
    except KeyboardInterrupt:
        values = {"outcome": "interrupted", "message": "interrupted; what served is unchanged"}
    except OSError as error:  # of this machine: a full disk, a directory that may not be written
        values = {"outcome": "failed", "message": str(error)}
    if values["message"] is not None:
        events.tell("build_engine.py: {outcome}: {message}".format(**values))
    events.say("end", **values)
    return EXIT_STATUSES[values["outcome"]]
