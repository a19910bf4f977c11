"""Recipe: everything that decides what is in the image of the emulated boards."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.root_files import ROOT_FILES
from edgeship.digests import file_sha256, json_sha256
from edgeship.errors import ConfigurationError, Problem
from edgeship.targets import load_target
from edgeship.vocabulary import Format

_BUILDERS: Final = ("debian.py", "disk.py", "initrd.py", "root.py", "root_files.py", "wheels.py")
"""The code that decides what an equal recipe gives: its bytes count too."""

EXTRAS_VARIABLE: Final = "EDGESHIP_LAB_EXTRAS"
"""Environment variable: `name=folder`, several with ":" between them; see `Recipe.extras`."""

IMAGE_ID: Final = "bookworm"
"""The catalogue's OS image that is emulated: Raspberry Pi OS 12 is Debian 12's arm64 userland."""

_BOARD: Final = "raspberry-pi-4"
"""The row whose runtimes are installed; a test holds that all emulated rows name the same."""

_PACKAGES: Final = (
    # what a Raspberry Pi OS Lite has of what probes, installers and runtimes call
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "libgomp1",
    "libstdc++6",
    "linux-image-cloud-arm64",  # 106 MB unpacked, the full one 351 (its control file)
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "python3",
    "sed",
    "tar",
    "util-linux",
    "xz-utils",
)
_WHEELS: Final = {"litert": "ai-edge-litert"}
"""Packages that are not called as their runtime is in the catalogue."""
_NUMPY: Final = "numpy==1.26.4"
"""The last of numpy 1: tflite_runtime 2.14.0 was compiled against it, and the others take it."""
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the image is made of.

    Attributes:
        suite: Debian's code name, to be among the machine's own apt sources.
        packages: Debian packages, which come with their dependencies.
        wheels: Requirements for pip, exact versions.
        python: Of the wheels: "3.11".
        size_mib: Of the file system; the file is sparse.
        extras: Name to a folder that comes to be `/opt/<name>`: `bin/*` of it is on the PATH,
            `python/` on Python's path.
        files: Ours: path to contents.
    """

    suite: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...]
    python: str
    size_mib: int
    extras: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=lambda: ROOT_FILES)

    def key(self) -> str:
        """The first 16 digits of the sha256 of all of it, contents of folders included."""
        content = {
            "builders": [file_sha256(Path(__file__).with_name(name)) for name in _BUILDERS],
            "suite": self.suite,
            "packages": self.packages,
            "wheels": self.wheels,
            "python": self.python,
            "size_mib": self.size_mib,
            "extras": {name: _tree(folder) for name, folder in self.extras.items()},
            "files": dict(self.files),
        }
        return json_sha256(content)[:16]


def lab_recipe(extras: Mapping[str, Path] | None = None) -> Recipe:
    """The recipe of the one image that all boards share.

    Args:
        extras: See `Recipe`; None for those that the environment variable names.

    Raises:
        ConfigurationError: The variable names what is no folder.
    """
    chosen = _extras_from_environment() if extras is None else dict(extras)
    target = load_target(_BOARD, os=IMAGE_ID)
    facts = [*target.formats[Format.TFLITE].runtimes, *target.formats[Format.ONNX].runtimes]
    return Recipe(
        suite=IMAGE_ID,
        packages=_PACKAGES,
        wheels=(
            _NUMPY,
            *(f"{_WHEELS.get(fact.name, fact.name)}=={fact.version}" for fact in facts),
        ),
        python=target.os.python or "3.11",
        size_mib=2048,  # 0.5 GB are used; the rest is room for uploads and installs
        extras=chosen,
    )


def _extras_from_environment() -> dict[str, Path]:
    extras = {}
    for part in filter(None, os.environ.get(EXTRAS_VARIABLE, "").split(os.pathsep)):
        name, _, folder = part.partition("=")
        if not (_NAME.fullmatch(name) and folder and Path(folder).is_dir()):
            problem = Problem(
                where=EXTRAS_VARIABLE,
                what="it names no folder for the image of the emulated boards",
                expected="name=folder, several with ':' between them",
                found=repr(part),
                remedy="correct it, or unset it",
            )
            raise ConfigurationError(problem)
        extras[name] = Path(folder)
    return extras


def _tree(folder: Path) -> list[tuple[str, str, bool]]:
    """Path, sha256 (or the destination of a link) and executable bit of all files below."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found.append((name, str(path.readlink()), False))
        elif path.is_file():
            found.append((name, file_sha256(path), bool(path.stat().st_mode & 0o100)))
    return found
