"""Board: which boards are emulated, by which CPU model, with how much memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from edgeship.device_tests.lab.recipe import IMAGE_ID
from edgeship.errors import Problem, RequirementMissing, UnknownName
from edgeship.memory import available_bytes
from edgeship.targets import Target, load_target, target_names

_MIB: Final = 1 << 20
_UNITS: Final = {"M": _MIB, "G": _MIB << 10}
_HOST_KEEPS: Final = 1 << 30
"""Left to the host: QEMU itself takes 0.2 GB beside the board's memory, the rest is for us."""
_LEAST: Final = 128 * _MIB
"""The image's kernel and sshd do not come up in less."""


@dataclass(frozen=True, kw_only=True)
class LabBoard:
    """An emulated board.

    Attributes:
        name: Of the catalogue's row.
        cpu: QEMU's `-cpu`: the instruction set that is emulated.
        cores: As many as the board has, at most as many as this machine.
        memory_bytes: Of the board; less than the row's where this machine cannot spare it.
        row_memory_bytes: What the catalogue's row says.
    """

    name: str
    cpu: str
    cores: int
    memory_bytes: int
    row_memory_bytes: int

    @property
    def is_reduced(self) -> bool:
        """Whether the board has less memory than its row, so that fitting is not shown by it."""
        return self.memory_bytes < self.row_memory_bytes


def lab_boards() -> tuple[str, ...]:
    """Names of the boards that can be emulated: rows with `[emulate]` and the image's system."""
    return tuple(name for name in target_names() if _is_emulated(load_target(name)))


def lab_board(name: str) -> LabBoard:
    """The emulated board of a row.

    Raises:
        UnknownName: No row of that name can be emulated.
        RequirementMissing: This machine has too little memory for any board.
    """
    require_board(name)
    target = load_target(name, os=IMAGE_ID)
    assert target.emulation is not None  # lab_boards has checked
    wanted = memory_from_text(target.emulation.memory)
    return LabBoard(
        name=name,
        cpu=target.emulation.qemu_cpu,
        cores=min(_cores(target), os.cpu_count() or 1),
        memory_bytes=spared_bytes(wanted, available_bytes()),
        row_memory_bytes=wanted,
    )


def require_board(name: str) -> None:
    """Nothing, for the name of a board that can be emulated; raises UnknownName for others."""
    names = lab_boards()
    if name not in names:
        raise UnknownName(kind="emulated board", name=name, choices=names, where="lab")


def memory_from_text(text: str) -> int:
    """Bytes of QEMU's `-m`, as the catalogue has it: "4096M"."""
    return int(text[:-1]) * _UNITS[text[-1]]


def spared_bytes(wanted: int, available: int | None) -> int:
    """What a board gets of `wanted` on a machine with so much left, in whole MiB.

    Raises:
        RequirementMissing: It is not enough to come up.
    """
    if available is None:
        return wanted
    spared = min(wanted, (available - _HOST_KEEPS) // _MIB * _MIB)
    if spared < min(wanted, _LEAST):
        problem = Problem(
            where="lab",
            what="too little memory is left for an emulated board",
            expected=f"{(_LEAST + _HOST_KEEPS) // _MIB} MiB",
            found=f"{available // _MIB} MiB",
            remedy="end other programs, or another board (`edgeship lab list`)",
        )
        raise RequirementMissing(problem)
    return spared


def _is_emulated(target: Target) -> bool:
    return target.emulation is not None and IMAGE_ID in target.os_choices


def _cores(target: Target) -> int:
    """From "4 x Cortex-A72"; 1 where the row does not say."""
    found = re.match(r"(\d+) x ", target.cpu.cores)
    return int(found[1]) if found else 1
