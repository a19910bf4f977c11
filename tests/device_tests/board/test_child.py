import io
import time

import pytest

from edgeship.device_tests.board.child import LOOK_S, Child
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.supervisor import Supervisor


def ignore(line: bytes) -> None:
    del line


def test_a_deadline_does_not_wait_for_a_look() -> None:
    start_s = time.monotonic()
    child = Child(["-c", "import time; time.sleep(30)"], look_s=60.0)
    ended = child.listen(ignore, 0.2)
    assert ended.outcome == "timeout"
    assert ended.values["message"] == "not finished within 0.2 s"
    assert time.monotonic() - start_s < 25


@pytest.mark.parametrize(("command", "look_s"), [("bench", 1.0), ("smoke", LOOK_S)])
def test_what_is_timed_is_looked_at_seldom(
    monkeypatch: pytest.MonkeyPatch, command: str, look_s: float
) -> None:
    seen: list[float] = []

    class Watched(Child):
        def __init__(self, arguments: list[str], *, look_s: float) -> None:
            super().__init__(arguments, look_s=look_s)
            seen.append(look_s)

    monkeypatch.setattr("edgeship.device_tests.board.supervisor.Child", Watched)
    supervisor = Supervisor(["-c", "pass"], Lines(io.BytesIO()))
    assert supervisor.run([command]).outcome == "failed"  # it leaves without a last event
    assert seen == [look_s]
    assert LOOK_S < 1.0
