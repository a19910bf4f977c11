"""Board archive: `edgeship-board.pyz`, the modules of `board/` in one file that Python runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeship.exchange import write_file
from edgeship.program_archive import program_archive

ARCHIVE_NAME: Final = "edgeship-board.pyz"
_PACKAGE: Final = "edgeship.device_tests.board"
_SHEBANG: Final = b"#!/usr/bin/env python3\n"


def archive_bytes() -> bytes:
    """The archive; see `program_archive`."""
    return program_archive(_PACKAGE, head=_SHEBANG)


def write_archive(path: Path) -> None:
    """Write it atomically."""
    write_file(path, archive_bytes())
