"""Program archive: the modules of one package in one file that Python runs on a board."""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_MAIN: Final = """\
import sys

from {package}.main import main

sys.exit(main(sys.argv[1:]))
"""
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip archive can hold (APPNOTE.TXT 4.4.6, MS-DOS date)."""
_REGULAR: Final = 0o100644 << 16
"""External attributes: a file that all may read (APPNOTE.TXT 4.4.15, Unix mode)."""


def program_archive(package: str, *, head: bytes, left_out: Collection[str] = ()) -> bytes:
    """The archive: the same sources give the same bytes, whatever the machine.

    Its entries are sorted, dated 1980 and stored without compression, whose bytes would be those of
    one release of zlib. The packages around `package` are empty there: what runs on a board imports
    nothing else of edgeship.

    Args:
        package: Dotted name; its module `main` has a function `main` of a list of arguments.
        head: What comes before the archive: the line that says which program runs it.
        left_out: Names of files of the package that no board needs.
    """
    stream = io.BytesIO(head)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members(package, left_out).items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system = 3  # Unix, also where Windows made it
            entry.external_attr = _REGULAR
            archive.writestr(entry, content)
    return stream.getvalue()


def _members(package: str, left_out: Collection[str]) -> dict[str, bytes]:
    """Contents by name in the archive."""
    members = {"__main__.py": _MAIN.format(package=package).encode()}
    parts = package.split(".")
    for depth in range(1, len(parts)):
        members[f"{'/'.join(parts[:depth])}/__init__.py"] = b""
    folder = "/".join(parts)
    for source in files(package).iterdir():
        if source.name.endswith(".py") and source.name not in left_out:
            members[f"{folder}/{source.name}"] = source.read_bytes()
    return members
