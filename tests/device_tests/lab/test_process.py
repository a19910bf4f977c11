import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edgeship.device_tests.lab.process import find_identity, is_alive, kill_process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_process_is_alive_until_it_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    identity = find_identity(sleeper.pid)
    assert identity is not None
    assert is_alive(identity)
    assert kill_process(identity, deadline_s=10)
    assert find_identity(sleeper.pid) is None  # a zombie until its parent asks
    assert sleeper.wait(10) == -9
    assert kill_process(identity, deadline_s=10)


def test_other_process_with_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    identity = find_identity(sleeper.pid)
    assert identity is not None
    other = replace(identity, start_ticks=identity.start_ticks - 1)
    assert not is_alive(other)
    assert kill_process(other, deadline_s=10)
    assert sleeper.poll() is None
