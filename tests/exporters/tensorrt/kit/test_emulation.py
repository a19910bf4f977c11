from pathlib import Path

import pytest

from edgeship.exporters.tensorrt.kit.emulation import emulation_of


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its root counts as `/`."""
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    monkeypatch.setattr("os.path.realpath", lambda _path: "/")
    return tmp_path


def test_facts_that_are_read_elsewhere_are_of_no_device(tmp_path: Path) -> None:
    assert emulation_of(str(tmp_path)) == f"the board's facts were read below {tmp_path}"


def test_a_jetson_is_a_device(machine: Path) -> None:
    (machine / "proc/device-tree/compatible").write_bytes(b"nvidia,p3768\0nvidia,tegra234\0")
    (machine / "proc/cmdline").write_text("root=/dev/mmcblk0p1 rw rootwait console=ttyTCU0")
    assert emulation_of(str(machine)) is None


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("proc/device-tree/compatible", "linux,dummy-virt\0", "QEMU's machine virt"),
        ("proc/cmdline", "console=ttyAMA0 edgeship.board=raspberry-pi-4", "edgeship's lab"),
        ("proc/cpuinfo", "model name\t: QEMU Virtual CPU version 2.5+", "the CPU is emulated"),
    ],
)
def test_an_emulated_board_says_so(machine: Path, name: str, text: str, reason: str) -> None:
    (machine / name).write_text(text)
    assert reason in (emulation_of(str(machine)) or "")
