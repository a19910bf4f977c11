"""Board archive: `edgeship-board.pyz`, the modules of `board/` in one file that Python runs."""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from edgeship.exchange import write_file

ARCHIVE_NAME: Final = "edgeship-board.pyz"
_PACKAGE: Final = "edgeship.device_tests.board"
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_MAIN: Final = """\
import sys

from edgeship.device_tests.board.main import main

sys.exit(main(sys.argv[1:]))
"""
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip archive can hold (APPNOTE.TXT 4.4.6, MS-DOS date)."""
_REGULAR: Final = 0o100644 << 16
"""External attributes: a file that all may read (APPNOTE.TXT 4.4.15, Unix mode)."""


def archive_bytes() -> bytes:
    """The archive: the same sources give the same bytes, whatever the machine.

    Its entries are sorted, dated 1980 and stored without compression, whose bytes would be those of
    one release of zlib. The packages around `board` are empty there: what runs on a board imports
    nothing else of edgeship.
    """
    stream = io.BytesIO(_SHEBANG)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members().items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system = 3  # Unix, also where Windows made it
            entry.external_attr = _REGULAR
            archive.writestr(entry, content)
    return stream.getvalue()


def write_archive(path: Path) -> None:
    """Write it atomically."""
    write_file(path, archive_bytes())


def _members() -> dict[str, bytes]:
    """Contents by name in the archive."""
    members = {"__main__.py": _MAIN.encode()}
    parts = _PACKAGE.split(".")
    for depth in range(1, len(parts)):
        members[f"{'/'.join(parts[:depth])}/__init__.py"] = b""
    folder = "/".join(parts)
    for source in files(_PACKAGE).iterdir():
        if source.name.endswith(".py"):
            members[f"{folder}/{source.name}"] = source.read_bytes()
    return members
