"""Lines: what a job on a board says, one JSON object a line on what was its stdout."""

import json
import os
import sys
from typing import BinaryIO


class Lines:
    """The stream of events. Each has the key "event"; the last one is "end"."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def say(self, event: str, **values: object) -> None:
        """Write one event, at once; NaN and infinity are refused, since JSON has none."""
        text = json.dumps(dict({"event": event}, **values), allow_nan=False)
        self.relay(text.encode("ascii") + b"\n")

    def relay(self, line: bytes) -> None:
        """Write a line that is one already."""
        self._stream.write(line)
        self._stream.flush()


def take_stdout() -> Lines:
    """Keep stdout for events: what anyone prints from now on, runtimes too, goes to stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Lines(stream)
