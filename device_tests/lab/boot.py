"""Boot: an emulated board from power on, through the first SSH banner, to power off."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.address import BOARD_USER, Address
from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.qemu import Machine, Power, Qemu
from edgeship.device_tests.lab.serial_log import last_lines, read_serial_log
from edgeship.device_tests.lab.tools import BOOTING, find_tools
from edgeship.errors import Problem, RequirementMissing

LOOPBACK: Final = "127.0.0.1"
BOOT_S: Final = 180.0
"""2.5 to 22 s, the latter at a load of 14 on two cores (measured); counting takes longer."""
_BANNER: Final = b"SSH-2.0-"  # RFC 4253, 4.2
_BANNER_S: Final = 5.0
_AGAIN_S: Final = 0.1
_PORT_ATTEMPTS: Final = 5
_PORT_TAKEN: Final = "Could not set up host forwarding rule"  # QEMU's net/slirp.c


@dataclass(frozen=True, kw_only=True)
class RunningBoard:
    """A board that is on.

    Attributes:
        board: What is emulated.
        folder: Serial log and known_hosts; gone when the board is off.
        port: See `Address`.
        boot_s: From the start of QEMU to the SSH banner.
    """

    board: LabBoard
    image: LabImage
    folder: Path
    port: int
    boot_s: float
    power: Power

    def address(self, user: str = BOARD_USER) -> Address:
        """How to log in."""
        return address_of(self.folder, image=self.image, port=self.port, user=user)

    def serial(self) -> str:
        """What the board's console has shown until now; see `serial_log.py`."""
        return read_serial_log(serial_file(self.folder))

    def power_cut(self) -> None:
        """Take the power away: what the board has not synced may be lost."""
        self.power.cut()


@contextmanager
def boot(
    board: LabBoard,
    image: LabImage,
    *,
    counting: bool = False,
    disk: Path | None = None,
    deadline_s: float = BOOT_S,
) -> Iterator[RunningBoard]:
    """Turn a board on, and off at the end, as a power cut does.

    QEMU ends with the thread that entered, even where that is killed.

    Args:
        board: From `lab_board`; `dataclasses.replace` gives it another memory or CPU.
        image: From `open_image` or `build_image`.
        counting: See `Machine.is_counting`.
        disk: From `new_disk`: keeps what is written. None: pristine.
        deadline_s: Until SSH answers.

    Raises:
        RequirementMissing: QEMU is absent or ended, or SSH did not answer in time; with the last
            that the board's console has shown.
    """
    with tempfile.TemporaryDirectory(prefix="edgeship-board-") as name:
        running = start_board(
            board, image, folder=Path(name), counting=counting, disk=disk, deadline_s=deadline_s
        )
        try:
            yield running
        finally:
            running.power_cut()


def start_board(
    board: LabBoard,
    image: LabImage,
    *,
    folder: Path,
    counting: bool = False,
    disk: Path | None = None,
    deadline_s: float = BOOT_S,
    start: Callable[[Machine, Mapping[str, str]], Power] = Qemu,
) -> RunningBoard:
    """Turn a board on; whoever calls turns it off. See `boot`.

    Args:
        board: See `boot`.
        image: See `boot`.
        folder: For the serial log and known_hosts.
        counting: See `boot`.
        disk: See `boot`.
        deadline_s: See `boot`.
        start: `Qemu`, or `StandingQemu`, which outlives us.
    """
    tools = find_tools(BOOTING)
    start_s = time.monotonic()
    for _ in range(_PORT_ATTEMPTS):
        machine = Machine(
            board=board,
            image=image,
            port=_free_port(),
            serial_log=serial_file(folder),
            disk=disk,
            is_counting=counting,
        )
        power = start(machine, tools)
        try:
            _await_ssh(power, machine, deadline_s=deadline_s)
        except _PortTaken:
            continue
        except BaseException:  # also an interrupt must leave no QEMU behind
            power.cut()
            raise
        line = f"[{LOOPBACK}]:{machine.port} {image.host_key}\n"
        _known_hosts(folder).write_text(line)
        return RunningBoard(
            board=board,
            image=image,
            folder=folder,
            port=machine.port,
            boot_s=time.monotonic() - start_s,
            power=power,
        )
    raise RequirementMissing(_not_up("every port that was free a moment ago was taken", ""))


def new_disk(image: LabImage, path: Path) -> Path:
    """A disk of one's own with the image's contents, sparse; raises FileExistsError."""
    path.touch(exist_ok=False)
    command = ["cp", "--reflink=auto", "--sparse=always", str(image.disk), str(path)]
    subprocess.run(command, check=True, timeout=120)
    return path


def address_of(folder: Path, *, image: LabImage, port: int, user: str) -> Address:
    """How to log in to the board whose files are in `folder`."""
    return Address(
        host=LOOPBACK,
        port=port,
        user=user,
        key=image.client_key,
        known_hosts=_known_hosts(folder),
    )


def serial_file(folder: Path) -> Path:
    """The serial log in a board's folder."""
    return folder / "serial.log"


def _known_hosts(folder: Path) -> Path:
    return folder / "known_hosts"


class _PortTaken(Exception):
    """Another program took the port before QEMU did."""


def _await_ssh(power: Power, machine: Machine, *, deadline_s: float) -> None:
    """Return when sshd shows its banner. QEMU itself accepts connections from its start."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if not power.is_running:
            said = power.said()
            if _PORT_TAKEN in said:
                raise _PortTaken
            serial = read_serial_log(machine.serial_log)
            raise RequirementMissing(_not_up(f"QEMU ended: {said or 'no message'}", serial))
        if _shows_banner(machine.port, timeout_s=min(_BANNER_S, deadline_s)):
            return
        time.sleep(_AGAIN_S)
    serial = read_serial_log(machine.serial_log)
    raise RequirementMissing(_not_up(f"no SSH in {deadline_s:.0f} s", serial))


def _shows_banner(port: int, *, timeout_s: float) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            return connection.recv(len(_BANNER)) == _BANNER
    except OSError:  # refused, reset, or silent
        return False


def _free_port() -> int:
    """A port that is free now; whoever is quicker may take it, so that callers try again."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _not_up(what: str, serial: str) -> Problem:
    return Problem(
        where="lab",
        what=f"the emulated board did not come up: {what}",
        found=f"on its console: {last_lines(serial, 5)}",
        remedy="see the console; with little memory or a busy machine, try one board at a time",
    )
