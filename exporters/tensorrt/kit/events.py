"""Events: one JSON object a line on stdout for programs, one line on stderr for people."""

import json
import sys
from typing import TextIO


class Events:
    """Where the work says what it does; the last event is "end"."""

    def __init__(self, out: TextIO, story: TextIO) -> None:
        self._out = out
        self._story = story

    def say(self, event: str, **values: object) -> None:
        """Write one event at once; NaN and infinity are refused, since JSON has none."""
        self._out.write(json.dumps(dict({"event": event}, **values), allow_nan=False) + "\n")
        self._out.flush()

    def tell(self, line: str) -> None:
        """Write one line for people."""
        self._story.write(line + "\n")
        self._story.flush()


def standard_events() -> Events:
    """On stdout and stderr."""
    return Events(sys.stdout, sys.stderr)
