"""QEMU: the command line of an emulated board, and the process that runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.process import ProcessIdentity, find_identity, is_alive, kill_process
from edgeship.device_tests.lab.tools import QEMU, SETPRIV

_END_S: Final = 10.0
_START_S: Final = 30.0
_SAID: Final = 500
_PID: Final = "qemu.pid"
_MIB: Final = 1 << 20


class Power(Protocol):
    """What keeps a board on."""

    @property
    def is_running(self) -> bool:
        """Whether QEMU has not ended."""
        ...

    def said(self) -> str:
        """What it wrote to stderr, the last 500 characters."""
        ...

    def cut(self) -> None:
        """End it at once, which is a power cut to the board; again is nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One way to start a board.

    Attributes:
        board: CPU model, cores, memory.
        image: Kernel, first file system, disk.
        port: On the loopback interface, forwarded to the board's SSH.
        serial_log: Where the board's console goes.
        disk: A disk that keeps what is written; None for the image's, pristine at each boot.
        is_counting: One core, on which each instruction takes one nanosecond of the board's clock
            (QEMU's `-icount shift=0`): times there count instructions and repeat.
    """

    board: LabBoard
    image: LabImage
    port: int
    serial_log: Path
    disk: Path | None
    is_counting: bool


def qemu_command(machine: Machine, qemu: str) -> list[str]:
    """Program and arguments.

    No graphics, no network but the one forwarded port (`restrict=on`): a board reaches nothing.
    """
    board, image = machine.board, machine.image
    cores = 1 if machine.is_counting else board.cores
    thread = "single" if machine.is_counting else "multi"
    snapshot = "on" if machine.disk is None else "off"
    disk = _escaped(machine.disk or image.disk)
    command = [qemu, "-M", "virt,gic-version=3", "-cpu", board.cpu, "-smp", str(cores)]
    command += ["-m", f"{board.memory_bytes // _MIB}M", "-accel", f"tcg,thread={thread}"]
    if machine.is_counting:
        command += ["-icount", "shift=0"]  # not sleep=off: SSH never completed with it (measured)
    return [
        *command,
        *("-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"),
        *("-serial", f"file:{_escaped(machine.serial_log)}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        # loglevel and panic: a kernel that dies ends QEMU; kaslr would move counts between boots
        *("-append", f"console=ttyAMA0 panic=-1 quiet nokaslr edgeship.board={board.name}"),
        *("-drive", f"file={disk},format=raw,if=none,id=disk,snapshot={snapshot}"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{machine.port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-object", "rng-random,id=rng,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng"),
    ]


class Qemu:
    """A running QEMU that ends with the thread that started it, even where that is killed."""

    def __init__(self, machine: Machine, tools: Mapping[str, str]) -> None:
        # PR_SET_PDEATHSIG (prctl(2)); Python's preexec_fn is unsafe where there are threads
        command = [tools[SETPRIV], "--pdeathsig", "KILL", *qemu_command(machine, tools[QEMU])]
        self._stderr = machine.serial_log.with_suffix(".stderr")
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
            )

    @property
    def is_running(self) -> bool:
        """See `Power`."""
        return self._process.poll() is None

    def said(self) -> str:
        """See `Power`."""
        return self._stderr.read_text(errors="replace").strip()[-_SAID:]

    def cut(self) -> None:
        """See `Power`."""
        self._process.kill()
        self._process.wait(_END_S)


class StandingQemu:
    """A running QEMU that outlives us: known by its process, not a child."""

    def __init__(self, machine: Machine, tools: Mapping[str, str]) -> None:
        folder = machine.serial_log.parent
        command = [
            *qemu_command(machine, tools[QEMU]),
            "-daemonize",
            "-pidfile",
            str(folder / _PID),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_START_S,
            check=False,
        )
        self._said = done.stderr.strip()[-_SAID:]
        self.identity = find_standing(folder) if done.returncode == 0 else None

    @property
    def is_running(self) -> bool:
        """See `Power`."""
        return self.identity is not None and is_alive(self.identity)

    def said(self) -> str:
        """See `Power`; only what it said at its start."""
        return self._said

    def cut(self) -> None:
        """See `Power`."""
        if self.identity is not None:
            kill_process(self.identity, deadline_s=_END_S)


def find_standing(folder: Path) -> ProcessIdentity | None:
    """The QEMU that writes its serial log to `folder`; None where none runs."""
    try:
        pid = int((folder / _PID).read_text())
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    is_ours = f"file:{folder.absolute()}/".encode() in line
    return find_identity(pid) if is_ours else None


def _escaped(path: Path) -> str:
    """A comma ends a value of QEMU's options unless it is doubled (its manual, "-drive")."""
    return str(path.absolute()).replace(",", ",,")
