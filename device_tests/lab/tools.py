"""Tools: the programs that the lab calls, and what to do about one that is absent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeship.errors import Problem, RequirementMissing

TOOLS_VARIABLE: Final = "EDGESHIP_LAB_TOOLS"
"""Environment variable: a folder that `tools/fixtures/lab_tools.sh` made."""

QEMU: Final = "qemu-system-aarch64"
MKE2FS: Final = "mke2fs"
DEBUGFS: Final = "debugfs"
APT: Final = "apt-get"
DPKG: Final = "dpkg-deb"
TAR: Final = "tar"
SETPRIV: Final = "setpriv"
PACKAGES: Final = {
    QEMU: "qemu-system-arm",
    MKE2FS: "e2fsprogs",
    DEBUGFS: "e2fsprogs",
    APT: "apt",
    DPKG: "dpkg",
    TAR: "tar",
    SETPRIV: "util-linux",
}
"""Debian's package of each program."""

BOOTING: Final = (QEMU, SETPRIV)
BUILDING: Final = (APT, DPKG, TAR, MKE2FS, DEBUGFS)
_SYSTEM: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where e2fsprogs is, and what is not on the PATH of plain users (Debian policy, 9.1)."""


def find_tools(names: Sequence[str]) -> dict[str, str]:
    """Path of each program: from the PATH, the system's folders, then the folder of fixtures.

    Raises:
        RequirementMissing: One problem for all that are absent.
    """
    found = {name: _find(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise RequirementMissing(_missing(missing))
    return {name: path for name, path in found.items() if path is not None}


def run_tool(command: Sequence[str], *, deadline_s: float, doing: str) -> str:
    """Run one program to its end; returns its stdout.

    Args:
        command: Program and arguments.
        deadline_s: It is killed after so long.
        doing: For the message: "fetching packages".

    Raises:
        RequirementMissing: It failed or passed its deadline; with the last that it said.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RequirementMissing(
            _failed(command, doing, f"no end in {deadline_s:.0f} s")
        ) from error
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = " | ".join(said[-3:])[-600:] or "no message"
        raise RequirementMissing(_failed(command, doing, f"status {done.returncode}: {last}"))
    return done.stdout


def _find(name: str) -> str | None:
    folders = [os.environ.get("PATH", os.defpath), *_SYSTEM]
    if tools := os.environ.get(TOOLS_VARIABLE):
        folders.append(str(Path(tools) / "bin"))
    return shutil.which(name, path=os.pathsep.join(folders))


def _missing(names: Sequence[str]) -> Problem:
    packages = " ".join(sorted({PACKAGES[name] for name in names}))
    plural = len(names) > 1
    return Problem(
        where="lab",
        what=f"{', '.join(names)} {'are' if plural else 'is'} not on this machine",
        expected=f"{'them' if plural else 'it'} on the PATH, or in bin/ of {TOOLS_VARIABLE}",
        remedy=f"`apt-get install {packages}`, or `make fixtures`, which needs no root",
    )


def _failed(command: Sequence[str], doing: str, found: str) -> Problem:
    return Problem(
        where="lab",
        what=f"{doing} failed in {Path(command[0]).name}",
        found=found,
        remedy="see its message; nothing was left behind",
    )
