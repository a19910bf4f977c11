import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeship.exporters.tensorrt.kit.process import Ended, death_of, run_process
from edgeship.exporters.tensorrt.kit.stopped import Stopped


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def ended(*, status: int = 0, lines: Sequence[str] = (), was_out_of_memory: bool = False) -> Ended:
    return Ended(
        status=status,
        lines=list(lines),
        seconds=2.0,
        peak_bytes=1,
        was_out_of_memory=was_out_of_memory,
        is_late=False,
    )


def test_lines_status_and_log_are_kept(tmp_path: Path) -> None:
    code = "import sys; print('one'); sys.stderr.write('two\\n'); sys.exit(3)"
    found = run_process(python(code), 60, log=str(tmp_path / "log"))
    assert (found.status, sorted(found.lines)) == (3, ["one", "two"])
    assert sorted((tmp_path / "log").read_text().split()) == ["one", "two"]
    assert found.peak_bytes > 1 << 20
    assert not found.is_late


def test_a_deadline_ends_it_and_its_children() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '600'])"
    found = run_process(python(code), 0.3)
    assert found.is_late
    assert found.status == -signal.SIGKILL
    assert death_of(found, "the build").outcome == "timeout"


def test_a_program_that_is_not_there_is_said() -> None:
    with pytest.raises(Stopped, match="cannot be started") as caught:
        run_process(["/nowhere/trtexec"], 5)
    assert caught.value.outcome == "no-tensorrt"


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    inner = f"import os, time; open({str(ready)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = (
        "from edgeship.exporters.tensorrt.kit.process import run_process; "
        f"run_process({python(inner)!r}, 600)"
    )
    parent = subprocess.Popen(python(outer))
    child = int(ready.read_text())
    parent.kill()
    parent.wait()
    status = Path(f"/proc/{child}/stat")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not status.exists() or status.read_text().rpartition(") ")[2][0] == "Z":
            return
        os.sched_yield()
    pytest.fail("it still runs")


@pytest.mark.parametrize(
    ("found", "outcome", "message"),
    [
        (
            ended(status=-9, was_out_of_memory=True),
            "out-of-memory",
            "the kernel killed it for want of memory",
        ),
        (ended(status=-9), "killed", "SIGKILL"),
        (ended(status=-15), "killed", "SIGTERM"),
        (
            ended(status=1, lines=["[x] [E] Error Code 2: OutOfMemory (no)", "&&&& FAILED"]),
            "out-of-memory",
            "Error Code 2",
        ),
        (
            ended(status=1, lines=["[x] [W] tactic: out of memory", "[x] [E] bad node", "end"]),
            "build-failed",
            "bad node",
        ),
        (ended(status=1, lines=["no errors marked", ""]), "build-failed", "no errors marked"),
        (ended(status=4), "build-failed", "status 4"),
    ],
)
def test_deaths_have_names(found: Ended, outcome: str, message: str) -> None:
    stopped = death_of(found, "the build of int8")
    assert stopped.outcome == outcome
    assert message in stopped.message
    assert stopped.message.startswith("the build of int8")
