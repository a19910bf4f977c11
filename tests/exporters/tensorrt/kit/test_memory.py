from pathlib import Path

import pytest

from edgeship.exporters.tensorrt.kit.memory import (
    available_bytes,
    is_near_nothing,
    look,
    workspace_mib,
)
from edgeship.exporters.tensorrt.kit.stopped import Stopped

GIB = 1 << 30


def none() -> None:
    """No GPU with memory of its own, whatever this machine has."""


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 1024), (256, 256), (1024, 1024), (3000, 1024)]
)
def test_the_workspace_is_a_quarter_of_what_is_free_at_most(
    asked: int | None, expected: int
) -> None:
    assert workspace_mib(4 * GIB, 0.25, asked, none) == expected


def test_too_little_memory_to_build_anything_is_said() -> None:
    with pytest.raises(Stopped, match=r"60 MiB are free.*add swap") as caught:
        workspace_mib(60 << 20, 0.25, None, none)
    assert caught.value.outcome == "out-of-memory"
    assert workspace_mib(64 << 20, 0.25, None, none) == 16


def test_a_gpu_with_memory_of_its_own_gives_the_workspace() -> None:
    assert workspace_mib(64 * GIB, 0.25, None, lambda: 8 * GIB) == 2048
    assert workspace_mib(2 * GIB, 0.25, 4000, lambda: 24 * GIB) == 4000
    with pytest.raises(Stopped, match="60 MiB of the GPU's own memory are free") as caught:
        workspace_mib(64 * GIB, 0.25, None, lambda: 60 << 20)
    assert "swap" not in caught.value.message


def test_counters_are_those_of_the_system_and_of_the_group(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("pgfault 1\noom_kill 3\n")
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/jobs\n0::/unit\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable: 20000 kB\n")
    for path in (
        "sys/fs/cgroup/unit/memory.events",
        "sys/fs/cgroup/memory/jobs/memory.oom_control",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("oom_kill 2\n")
    found = look(str(tmp_path))
    assert found.kills == 7
    assert found.available == available_bytes(str(tmp_path)) == 20000 << 10
    assert is_near_nothing(found.available, str(tmp_path))
    assert not is_near_nothing(400000 << 10, str(tmp_path))
    assert available_bytes(str(tmp_path / "nowhere")) is None
