import os
import signal
from pathlib import Path

import pytest

from edgeship.device_tests.board.ending import outcome_of
from edgeship.device_tests.board.pressure import Snapshot, is_near_nothing, look


def write_machine(root: Path, *, kills: int, available_kib: int, group: str) -> None:
    for name in ("proc/self", f"sys/fs/cgroup/{group}", f"sys/fs/cgroup/memory/{group}"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "proc/vmstat").write_text(f"nr_free_pages 12\noom_kill {kills}\n")
    (root / "proc/meminfo").write_text(
        f"MemTotal:        196608 kB\nMemAvailable:    {available_kib} kB\n"
    )


def test_kills_of_the_system_and_of_either_kind_of_group_are_counted(tmp_path: Path) -> None:
    write_machine(tmp_path, kills=2, available_kib=1000, group="a/b")
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,memory:/a/b\n0::/a/b\n")
    (tmp_path / "sys/fs/cgroup/a/b/memory.events").write_text("oom 4\noom_kill 3\n")
    (tmp_path / "sys/fs/cgroup/memory/a/b/memory.oom_control").write_text("oom_kill 5\n")
    assert look(str(tmp_path)) == Snapshot(kills=10, available=1000 << 10)


def test_a_machine_that_says_nothing_says_none(tmp_path: Path) -> None:
    assert look(str(tmp_path)) == Snapshot(kills=0, available=None)
    assert not is_near_nothing(None, str(tmp_path))


@pytest.mark.parametrize(("available_kib", "is_near"), [(15 << 10, True), (17 << 10, False)])
def test_near_nothing_is_16_mib_of_a_small_board(
    tmp_path: Path, available_kib: int, is_near: bool
) -> None:
    write_machine(tmp_path, kills=0, available_kib=available_kib, group="x")
    assert is_near_nothing(available_kib << 10, str(tmp_path)) is is_near


@pytest.mark.parametrize(
    ("number", "stderr", "was_out_of_memory", "outcome"),
    [
        (signal.SIGILL, "", True, "illegal-instruction"),
        (signal.SIGKILL, "", True, "out-of-memory"),
        (signal.SIGKILL, "", False, "killed"),
        (signal.SIGABRT, "  what():  std::bad_alloc", False, "out-of-memory"),
        (signal.SIGABRT, "double free", True, "killed"),
        (signal.SIGTERM, "", True, "killed"),
        (signal.SIGRTMIN + 3, "", False, "killed"),
    ],
)
def test_a_signal_is_named_for_what_it_means(
    number: int, stderr: str, was_out_of_memory: bool, outcome: str
) -> None:
    found = outcome_of(number, stderr=stderr, was_out_of_memory=was_out_of_memory)
    assert found is not None
    assert found[0] == outcome


def test_a_process_that_just_left_has_no_signal() -> None:
    status = 3 << 8
    assert os.WEXITSTATUS(status) == 3
    assert outcome_of(status, stderr="", was_out_of_memory=True) is None
