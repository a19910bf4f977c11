"""Archive: build_engine.py, the modules of this folder in one file that Python runs (host side)."""

from __future__ import annotations

from typing import Final

from edgeship.program_archive import program_archive

PROGRAM_NAME: Final = "build_engine.py"
_PACKAGE: Final = "edgeship.exporters.tensorrt.kit"
_NOT_SHIPPED: Final = frozenset({"archive.py"})
_HEAD: Final = b"""\
#!/usr/bin/env python3
# Builds TensorRT engines on the board: python3 build_engine.py --help
# This is a zip application for Python 3.6 and newer; unzip it to read its modules.
"""


def program_bytes() -> bytes:
    """The program; see `program_archive`."""
    return program_archive(_PACKAGE, head=_HEAD, left_out=_NOT_SHIPPED)
