"""Emulation: whether this machine is a board at all, or one that is made of software."""

import os
from typing import Optional

_DEVICE_TREE = "proc/device-tree"
_QEMU_MACHINE = "linux,dummy-virt"
"""What the device tree of QEMU's machine `virt` calls itself (qemu, hw/arm/virt.c)."""
_QEMU_CPU = "QEMU Virtual CPU"
"""Of CPUs that QEMU computes (qemu, target/i386/cpu.c); a GPU can be passed to others."""
_LAB_BOARD = "edgeship.board="
"""On the kernel's command line of every board of edgeship's lab."""


def emulation_of(root: str = "/") -> Optional[str]:
    """Why nothing that is run here was run on a device; None where nothing speaks against one.

    A board whose facts are read elsewhere than at `/` is none: it was put together for a test.
    """
    if os.path.realpath(root) != "/":
        return f"the board's facts were read below {root}"
    for name in ("compatible", "model"):
        if _QEMU_MACHINE in _text(os.path.join(root, _DEVICE_TREE, name)):
            return f"the device tree is that of QEMU's machine virt ({_QEMU_MACHINE})"
    if _LAB_BOARD in _text(os.path.join(root, "proc/cmdline")):
        return "it is an emulated board of edgeship's lab"
    if _QEMU_CPU in _text(os.path.join(root, "proc/cpuinfo")):
        return f"the CPU is emulated ({_QEMU_CPU})"
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
