"""Wheels: the runtimes of the boards, installed across by pip, and what is compiled ahead."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.tools import run_tool

_GLIBC_MINORS: Final = (17, 24, 26, 27, 28, 31, 34, 35, 36)
"""Of the manylinux tags that a board with glibc 2.36 takes (PEP 600) and that wheels carry."""
_INSTALL_S: Final = 900.0
_COMPILE_S: Final = 300.0


def install_wheels(requirements: Sequence[str], *, python: str, destination: Path) -> None:
    """Install aarch64 wheels and their dependencies into a folder; no code of theirs runs.

    Raises:
        RequirementMissing: pip is absent, or cannot find them.
    """
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in _GLIBC_MINORS)]
    run_tool(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        + ["--disable-pip-version-check", "--target", str(destination)]
        + [option for tag in tags for option in ("--platform", tag)]
        + ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
        + list(requirements),
        deadline_s=_INSTALL_S,
        doing="installing the aarch64 runtimes",
    )


def installed_wheels(destination: Path) -> tuple[str, ...]:
    """`name==version` of what stands there, sorted."""
    names = [path.name.removesuffix(".dist-info") for path in destination.glob("*.dist-info")]
    return tuple(sorted(name.replace("-", "==") for name in names))


def compile_ahead(root: Path, folders: Sequence[str], *, python: str) -> bool:
    """Write the byte code that the boards' plain user could not store.

    Only a Python of the same version writes what theirs reads; with another one nothing is done,
    and everything that starts there compiles its imports first.

    Args:
        root: Of the image.
        folders: Below it.
        python: Version of the image's Python: "3.11".

    Returns:
        Whether it was done.
    """
    if f"{sys.version_info.major}.{sys.version_info.minor}" != python:
        return False
    # a child, because compileall prints; files that are no Python 3 are skipped by it with status 1
    code = (
        "import compileall, json, sys\n"
        "from py_compile import PycInvalidationMode as Mode\n"
        "root, folders = json.loads(sys.argv[1])\n"
        "for folder in folders:\n"
        "    compileall.compile_dir(f'{root}/{folder}', quiet=2, stripdir=root, workers=0,\n"
        "                           invalidation_mode=Mode.UNCHECKED_HASH)\n"
    )
    run_tool(
        [sys.executable, "-I", "-c", code, json.dumps([str(root), list(folders)])],
        deadline_s=_COMPILE_S,
        doing="compiling Python files",
    )
    return True
