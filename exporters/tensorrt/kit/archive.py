"""Archive: build_engine.py, the modules of this folder in one file that Python runs (host side)."""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files
from typing import Final

PROGRAM_NAME: Final = "build_engine.py"
_PACKAGE: Final = "edgeship.exporters.tensorrt.kit"
_NOT_SHIPPED: Final = frozenset({"archive.py"})
_HEAD: Final = b"""\
#!/usr/bin/env python3
# Builds TensorRT engines on the board: python3 build_engine.py --help
# This is a zip application for Python 3.6 and newer; unzip it to read its modules.
"""
_MAIN: Final = """\
import sys

from edgeship.exporters.tensorrt.kit.main import main

sys.exit(main(sys.argv[1:]))
"""
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip archive can hold (APPNOTE.TXT 4.4.6, MS-DOS date)."""
_REGULAR: Final = 0o100644 << 16
"""External attributes: a file that all may read (APPNOTE.TXT 4.4.15, Unix mode)."""


def program_bytes() -> bytes:
    """The program: the same sources give the same bytes, whatever the machine.

    Its entries are sorted, dated 1980 and stored without compression. The packages around `kit` are
    empty there: what runs on a board imports nothing else of edgeship.
    """
    stream = io.BytesIO(_HEAD)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members().items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system = 3  # Unix, also where Windows made it
            entry.external_attr = _REGULAR
            archive.writestr(entry, content)
    return stream.getvalue()


def _members() -> dict[str, bytes]:
    """Contents by name in the archive."""
    members = {"__main__.py": _MAIN.encode()}
    parts = _PACKAGE.split(".")
    for depth in range(1, len(parts)):
        members[f"{'/'.join(parts[:depth])}/__init__.py"] = b""
    folder = "/".join(parts)
    for source in files(_PACKAGE).iterdir():
        if source.name.endswith(".py") and source.name not in _NOT_SHIPPED:
            members[f"{folder}/{source.name}"] = source.read_bytes()
    return members
