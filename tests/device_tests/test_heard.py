from __future__ import annotations

import pytest

from edgeship.device_tests.heard import Heard
from edgeship.device_tests.transports.protocol import ConnectionFailed, Ended


def ended(stderr: bytes = b"", *, status: int | None = 0, signal: str | None = None) -> Ended:
    return Ended(command=("x",), status=status, signal=signal, stdout=b"", stderr=stderr)


def test_events_are_heard_until_the_last_one() -> None:
    heard = Heard(where="bench")
    heard.line('{"event": "memory", "peak_bytes": 9, "imported_bytes": null}')
    heard.line('{"event": "end", "outcome": "refused", "message": "no such operator"}')
    heard.close(ended(b"\n".join(b"line %d" % number for number in range(30))))
    assert (heard.outcome, heard.message, heard.memory) == ("refused", "no such operator", None)
    assert heard.stderr.splitlines() == [f"line {number}" for number in range(10, 30)]


@pytest.mark.parametrize(
    ("lines", "how", "found"),
    [
        (['{"event": "start"}'], ended(b"Killed", status=None, signal="KILL"), "signal KILL; Kill"),
        ([], ended(status=127), "status 127"),
        (['{"event": "end"}'], ended(), "without an outcome"),
        (['{"event": "end", "outcome": "ok"}', "bye"], ended(), "'bye'"),
        (['{"event": "end", "outcome": "ok"}', '{"event": "x"}'], ended(), "no last line"),
        (["[1]", '{"event": "end", "outcome": "ok"}'], ended(), r"'\[1\]'"),
    ],
)
def test_half_a_result_is_none(lines: list[str], how: Ended, found: str) -> None:
    heard = Heard(where="bench")
    for line in lines:
        heard.line(line)
    with pytest.raises(ConnectionFailed, match=found):
        heard.close(how)
