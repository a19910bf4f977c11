import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgeship.device_tests.lab import commands
from edgeship.device_tests.lab.address import Address
from edgeship.device_tests.lab.board import LabBoard, lab_board
from edgeship.device_tests.lab.boot import RunningBoard, boot, new_disk
from edgeship.device_tests.lab.image import LabImage, lab_folder
from edgeship.device_tests.lab.serial_log import illegal_instructions, killed_for_memory
from edgeship.device_tests.transports.protocol import Connection, Ended, HostKeyRefused
from edgeship.device_tests.transports.ssh import SshTransport
from edgeship.targets import load_target

pytestmark = pytest.mark.slow

MIB = 1 << 20
DEADLINE_S = 120.0
# one instruction that no Arm CPU has: UDF #0, 00000000 (Arm ARM, C6.2)
UNDEFINED = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes(4))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
GREEDY = "blocks = [b'x' * (10 << 20) for _ in range(40)]"
BUSY = """
import time
def busy():
    start = time.perf_counter_ns()
    total = 0
    for index in range(200_000):
        total += index * index
    return time.perf_counter_ns() - start
print(sorted(busy() for _ in range(5))[2])
"""


@contextmanager
def connected(address: Address) -> Iterator[Connection]:
    transport = SshTransport(
        host=address.host,
        port=address.port,
        user=address.user,
        key=address.key,
        known_hosts=address.known_hosts,
        is_agent_allowed=False,
    )
    with transport.connect(deadline_s=DEADLINE_S) as connection:
        yield connection


def python(running: RunningBoard, code: str) -> Ended:
    with connected(running.address()) as connection:
        return connection.run(["python3", "-c", code], deadline_s=DEADLINE_S)


def shell(running: RunningBoard, line: str, *, user: str = "edgeship") -> str:
    with connected(running.address(user)) as connection:
        ended = connection.run(["sh", "-c", line], deadline_s=DEADLINE_S)
    assert ended.is_ok, ended
    return ended.stdout.decode().strip()


@pytest.fixture
def pi() -> LabBoard:
    return lab_board("raspberry-pi-4")


def test_board_runs_the_system_of_its_row_as_a_plain_user(image: LabImage, pi: LabBoard) -> None:
    system = load_target("raspberry-pi-4", os="bookworm").os
    with boot(pi, image) as running:
        said = shell(running, "uname -m; id -un; python3 --version; getconf GNU_LIBC_VERSION")
        assert said == f"aarch64\nedgeship\nPython {system.python}.2\nglibc {system.glibc}"
        wheels = "import ai_edge_litert.interpreter, tflite_runtime.interpreter, onnxruntime"
        ended = python(running, f"{wheels}; import numpy; print(numpy.__version__)")
        assert ended.stdout == b"1.26.4\n", ended
        kilobytes = int(shell(running, "grep MemTotal /proc/meminfo").split()[1])
        assert 0.9 * pi.memory_bytes < kilobytes << 10 <= pi.memory_bytes
        difference_s = int(shell(running, "date +%s")) - time.time()
        assert abs(difference_s) < DEADLINE_S


def test_each_boot_is_pristine_and_known_by_its_host_key(image: LabImage, pi: LabBoard) -> None:
    with boot(pi, image) as running:
        shell(running, "touch /etc/left; sync", user="root")
    with boot(pi, image) as running:
        assert shell(running, "test -e /etc/left || echo gone") == "gone"
        known = running.address().known_hosts
        known.write_text(known.read_text().replace("AAAAI", "AAAAJ"))
        with pytest.raises(HostKeyRefused), connected(running.address()):
            pass


def test_disk_of_ones_own_keeps_what_was_synced_over_a_power_cut(
    image: LabImage, pi: LabBoard, tmp_path: Path
) -> None:
    disk = new_disk(image, tmp_path / "disk")
    with boot(pi, image, disk=disk) as running:
        shell(running, "echo kept >/home/edgeship/file; sync", user="root")
        running.power_cut()
    with boot(pi, image, disk=disk) as running:
        assert shell(running, "cat /home/edgeship/file") == "kept"


def test_deaths_by_memory_and_by_instruction_are_on_the_console(
    image: LabImage, pi: LabBoard
) -> None:
    with boot(replace(pi, memory_bytes=192 * MIB), image) as running:
        assert python(running, UNDEFINED).signal == "ILL"
        assert python(running, GREEDY).signal == "KILL"
        (illegal,) = illegal_instructions(running.serial())
        (killed,) = killed_for_memory(running.serial())
    assert illegal.program == killed.program == "python3"
    assert 64 * MIB < killed.rss_bytes < 192 * MIB


def test_counting_boards_take_the_same_time_in_two_boots(image: LabImage, pi: LabBoard) -> None:
    counts = []
    for _ in range(2):
        with boot(pi, image, counting=True) as running:
            counts.append(int(python(running, BUSY).stdout))
    assert abs(counts[0] - counts[1]) < 0.01 * counts[0], counts


def test_board_stays_up_between_commands(
    image: LabImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = lab_folder() / "images"
    monkeypatch.setenv("EDGESHIP_LAB", str(tmp_path))
    (tmp_path / "images").symlink_to(images)
    standing = commands.up("cortex-a53")
    try:
        assert standing.image.key == image.key
        ended = commands.run("cortex-a53", ["uname", "-m"], deadline_s=DEADLINE_S)
        assert (ended.status, ended.stdout) == (0, b"aarch64\n")
        on = [row.board.name for row in commands.listing() if row.standing is not None]
        assert on == ["cortex-a53"]
    finally:
        (off,) = commands.down()
    assert off == standing
    assert commands.down() == ()
