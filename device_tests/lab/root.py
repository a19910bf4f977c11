"""Root: the folder that becomes the boards' disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.root_files import LATE_LINKS, ROOT_LINKS

RUNTIMES_FOLDER: Final = "opt/rt"
_FOLDERS: Final = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "home/edgeship",
    "opt",
    "usr/local/bin",
)
_SHELL_MARK: Final = "#!"


def prepare_root(root: Path) -> None:
    """Make what packages are unpacked into."""
    root.mkdir()
    for name, destination in ROOT_LINKS.items():
        (root / destination).mkdir(parents=True)
        (root / name).symlink_to(destination)


def configure_root(
    root: Path,
    *,
    files: Mapping[str, str],
    extras: Mapping[str, Path],
    python: str,
    authorized_key: str,
    host_key: bytes,
) -> None:
    """Do what maintainer scripts and an installer would have done.

    Args:
        root: With the packages unpacked.
        files: Ours, by path.
        extras: Folders that come to be `/opt/<name>`.
        python: Version of the image's Python: "3.11".
        authorized_key: Line of OpenSSH's authorized_keys, for root and the plain user.
        host_key: Private, in OpenSSH's format.
    """
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith(_SHELL_MARK) else 0o644)
    for name, destination in LATE_LINKS.items():
        path = root / name
        if not path.is_symlink() and not path.exists():
            path.symlink_to(destination)
    _write_users(root)
    _write_keys(root, authorized_key=authorized_key, host_key=host_key)
    _install_extras(root, extras, python=python)


def _write_users(root: Path) -> None:
    """Debian's own users and ours."""
    for kind, ours in (("passwd", "users"), ("group", "groups")):
        master = (root / f"usr/share/base-passwd/{kind}.master").read_text()
        (root / f"etc/{kind}").write_text(master + (root / f"etc/edgeship/{ours}").read_text())


def _write_keys(root: Path, *, authorized_key: str, host_key: bytes) -> None:
    folder = root / "etc/ssh"
    (folder / "authorized_keys").write_text(authorized_key)
    private = folder / "ssh_host_ed25519_key"
    private.write_bytes(host_key)
    private.chmod(0o600)


def _install_extras(root: Path, extras: Mapping[str, Path], *, python: str) -> None:
    """Copy them, and put their programs on the PATH and all packages on Python's path."""
    paths = [f"/{RUNTIMES_FOLDER}"]
    for name, folder in sorted(extras.items()):
        destination = root / "opt" / name
        shutil.copytree(folder, destination, symlinks=True)
        if (destination / "python").is_dir():
            paths.append(f"/opt/{name}/python")
        for program in sorted((destination / "bin").glob("*")):
            (root / "usr/local/bin" / program.name).symlink_to(f"/opt/{name}/bin/{program.name}")
    packages = root / f"usr/local/lib/python{python}/dist-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "edgeship-lab.pth").write_text("".join(f"{path}\n" for path in paths))
