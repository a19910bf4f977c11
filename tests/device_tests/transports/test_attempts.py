from __future__ import annotations

import pytest

from edgeship.device_tests.transports.attempts import Attempts, LoginRefused, attempt
from edgeship.device_tests.transports.protocol import ConnectionFailed, HostKeyRefused
from edgeship.errors import Problem, RequirementMissing

PROBLEM = Problem(where="board", what="does not answer", remedy="wait")


class Step:
    """Fails as told, in an imagined time in which each attempt takes a second."""

    def __init__(self, *errors: Exception) -> None:
        self.now_s = 100.0
        self.left_s: list[float] = []
        self.pauses_s: list[float] = []
        self._errors = list(errors)
        self.attempts = Attempts(times=3, pause_s=0.5, sleep=self._sleep, clock=lambda: self.now_s)

    def __call__(self, left_s: float) -> str:
        self.left_s.append(left_s)
        self.now_s += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    def _sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


def test_failed_connections_are_tried_again_under_one_deadline() -> None:
    step = Step(ConnectionFailed(PROBLEM), ConnectionFailed(PROBLEM))
    assert attempt(step, deadline_s=10, attempts=step.attempts) == "done"
    assert step.left_s == [10, 8.5, 6.5]
    assert step.pauses_s == [0.5, 1]


def test_last_failure_is_told() -> None:
    step = Step(*(ConnectionFailed(PROBLEM) for _ in range(3)), ConnectionFailed())
    with pytest.raises(ConnectionFailed, match="does not answer"):
        attempt(step, deadline_s=10, attempts=step.attempts)
    assert len(step.left_s) == 3


def test_no_attempt_starts_when_the_time_is_up() -> None:
    step = Step(ConnectionFailed(PROBLEM), ConnectionFailed(PROBLEM))
    with pytest.raises(ConnectionFailed):
        attempt(step, deadline_s=1.5, attempts=step.attempts)
    assert len(step.left_s) == 1


@pytest.mark.parametrize("kind", [HostKeyRefused, LoginRefused, RequirementMissing, ValueError])
def test_refusals_are_final(kind: type[Exception]) -> None:
    step = Step(kind(PROBLEM))
    with pytest.raises(kind):
        attempt(step, deadline_s=10, attempts=step.attempts)
    assert len(step.left_s) == 1
