"""Layout: the names in a bundle, and which other names may stand beside them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

SCHEMA: Final = 1
ARTIFACTS: Final = "artifacts"
BOARD_NAME: Final = "edgeship-board.pyz"
BUILDER_NAME: Final = "build_engine.py"
"""Of a TensorRT kit: what builds its engines on the board."""
DESCRIPTION_NAME: Final = "bundle.json"
FACTS_NAME: Final = "release.txt"
INSTALLER_NAME: Final = "install.sh"
README_NAME: Final = "README.txt"
SUMS_NAME: Final = "SHA256SUMS"
RELEASE_LENGTH: Final = 12
"""Hex digits of a release id: 48 bits, enough for one product's releases to differ."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_PART: Final = 255  # NAME_MAX of ext4


def is_plain_name(name: str) -> bool:
    """Whether a shell, a file system and a link take `name` as it is: letters, digits, `._-`."""
    return _PLAIN.fullmatch(name) is not None


def artifact_directory(format_name: str, precision: str) -> str:
    """Where an artifact lies in a bundle."""
    return f"{ARTIFACTS}/{format_name}-{precision}"


def name_fault(name: str) -> str | None:
    """Why a file of this name may not stand in a bundle; None where it may.

    sha256sum(1) escapes names with backslashes and line ends, and not all versions read them back.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "it leads out of its directory"
    if str(path) != name or not path.parts:
        return "it is not the plain form of a path"
    if "\\" in name or not name.isprintable():
        return "it holds a backslash or a control character"
    if any(len(part.encode()) > _LONGEST_PART for part in path.parts):
        return "it is too long"
    return None


def release_facts(facts: str) -> dict[str, str]:
    """`release.txt` as key and value; of keys that come more than once the last."""
    return dict(line.split(" ", 1) for line in facts.splitlines() if " " in line)
