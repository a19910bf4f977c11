"""Disk: an ext4 file system made from a folder, without root and without mounting it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.tools import DEBUGFS, MKE2FS, run_tool

_MAKE_S: Final = 300.0


def make_disk(
    root: Path, disk: Path, *, size_mib: int, tools: Mapping[str, str], scratch: Path
) -> None:
    """Write `root` as a sparse ext4 image whose files all belong to root.

    Raises:
        RequirementMissing: mke2fs or debugfs failed, for example for want of room.
    """
    options = ["-q", "-F", "-t", "ext4", "-m", "0", "-L", "edgeship", "-E", "root_owner=0:0"]
    run_tool(
        [tools[MKE2FS], *options, "-d", str(root), str(disk), f"{size_mib}M"],
        deadline_s=_MAKE_S,
        doing="making the disk",
    )
    if os.geteuid() != 0:
        _give_to_root(root, disk, tools=tools, scratch=scratch)


def _give_to_root(root: Path, disk: Path, *, tools: Mapping[str, str], scratch: Path) -> None:
    """mke2fs keeps the owners of the folder, all of them the plain user who builds."""
    commands = scratch / "owners"
    with commands.open("w") as file:
        for path in root.rglob("*"):
            name = f"/{path.relative_to(root)}"
            file.write(f'sif "{name}" uid 0\nsif "{name}" gid 0\n')
    run_tool(
        [tools[DEBUGFS], "-w", "-f", str(commands), str(disk)],
        deadline_s=_MAKE_S,
        doing="giving the files to root",
    )
