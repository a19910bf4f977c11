"""Debian: unpacks arm64 packages into a folder, running nothing of them and installing nothing.

The machine's own apt configuration says where packages come from and which keys sign them; its
lists and state are not touched: apt gets a state, a cache and an empty package database of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.tools import APT, DPKG, TAR, run_tool
from edgeship.errors import Problem, RequirementMissing

SOURCES_VARIABLE: Final = "EDGESHIP_LAB_SOURCES"
"""Environment variable: an apt source file that names the suite, for machines of another one."""

_ARCHITECTURE: Final = "arm64"
_APT_FOLDER: Final = Path("/etc/apt")
_UPDATE_S: Final = 300.0
_DOWNLOAD_S: Final = 900.0
"""66 MB (measured); slow lines are real, hanging ones too."""
_UNPACK_S: Final = 120.0
_LEFT_OUT: Final = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")
"""40 MB that nobody reads on an emulated board (measured)."""
_NOT_UNPACKED: Final = ("perl_", "perl-modules", "libperl5", "initramfs-tools", "klibc-utils")
"""What a kernel package depends on for installing itself: 50 MB (measured)."""


def unpack_packages(
    packages: Sequence[str],
    *,
    suite: str,
    root: Path,
    scratch: Path,
    tools: Mapping[str, str],
) -> tuple[str, ...]:
    """Fetch packages with what they depend on, and unpack them into `root`.

    No maintainer script runs, so that no ARM code does. All files belong to who calls.

    Returns:
        `name=version` of each, sorted.

    Raises:
        RequirementMissing: No source names the suite, or apt failed.
    """
    options = _own_state(scratch, _source_files(suite))
    run_tool([tools[APT], *options, "-qq", "update"], deadline_s=_UPDATE_S, doing="apt-get update")
    fetching = [*options, "-qq", "-y", "--no-install-recommends", "--download-only"]
    run_tool(
        [tools[APT], *fetching, "install", *packages],
        deadline_s=_DOWNLOAD_S,
        doing=f"fetching the {_ARCHITECTURE} packages",
    )
    fetched = sorted((scratch / "cache/archives").glob("*.deb"))
    archives = [path for path in fetched if not path.name.startswith(_NOT_UNPACKED)]
    for archive in archives:
        _unpack(archive, root, tools)
    return _register(archives, root, tools)


def _source_files(suite: str) -> tuple[Path, ...]:
    """The machine's apt source files that name the suite, or the one that the variable names."""
    if named := os.environ.get(SOURCES_VARIABLE):
        candidates = [Path(named)]
    else:
        candidates = [
            _APT_FOLDER / "sources.list",
            *sorted((_APT_FOLDER / "sources.list.d").glob("*.list")),
            *sorted((_APT_FOLDER / "sources.list.d").glob("*.sources")),
        ]
    word = re.compile(rf"^[^#\n]*\b{re.escape(suite)}\b", re.MULTILINE)
    fitting = tuple(path for path in candidates if path.is_file() and word.search(path.read_text()))
    if not fitting:
        problem = Problem(
            where=named or str(_APT_FOLDER),
            what=f"no apt source of Debian's {suite} here, from which the image is made",
            remedy=f"name a file with one in {SOURCES_VARIABLE} (man sources.list)",
        )
        raise RequirementMissing(problem)
    return fitting


def _own_state(scratch: Path, sources: Sequence[Path]) -> list[str]:
    """Folders of apt's own in `scratch`, and the options that make it use them."""
    for name in ("state/lists/partial", "cache/archives/partial", "sources.list.d"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    for index, path in enumerate(sources):
        suffix = ".sources" if path.suffix == ".sources" else ".list"
        content = path.read_bytes()
        (scratch / f"sources.list.d/{index}{suffix}").write_bytes(content)
    settings = {
        "APT::Architecture": _ARCHITECTURE,
        "APT::Architectures": _ARCHITECTURE,
        "APT::Sandbox::User": "root",  # the user _apt cannot write here; plain users do not care
        "Acquire::Languages": "none",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": scratch / "sources.list.d",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        # images of containers delete each archive after use
        "APT::Keep-Downloaded-Packages": "true",
        "DPkg::Post-Invoke": "",
        "APT::Update::Post-Invoke": "",
    }
    return [f"-o{name}={value}" for name, value in settings.items()]


def _unpack(archive: Path, root: Path, tools: Mapping[str, str]) -> None:
    """Into merged folders: a package's `bin/x` goes through the link `bin`."""
    command = [tools[TAR], "-x", "-p", "--no-same-owner", "--keep-directory-symlink"]
    command += [f"--exclude={name}" for name in _LEFT_OUT]
    with subprocess.Popen(
        [tools[DPKG], "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
    ) as reading:
        subprocess.run(
            [*command, "-C", str(root), "-f", "-"],
            stdin=reading.stdout,
            timeout=_UNPACK_S,
            check=True,
        )


def _register(archives: Sequence[Path], root: Path, tools: Mapping[str, str]) -> tuple[str, ...]:
    """Fill the database that `dpkg-query` on the board reads."""
    entries, names = [], []
    for archive in archives:
        control = run_tool(
            [tools[DPKG], "-f", str(archive)], deadline_s=30, doing="reading a package"
        )
        fields = dict(re.findall(r"^(Package|Version): (.+)$", control, re.MULTILINE))
        names.append(f"{fields['Package']}={fields['Version']}")
        entries.append(f"{control.rstrip()}\nStatus: install ok installed\n")
    folder = root / "var/lib/dpkg"
    (folder / "info").mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("\n".join(entries))
    return tuple(sorted(names))
