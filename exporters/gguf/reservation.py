"""Reservation: a file of known size that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exchange import NEW_PREFIX

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class ReservedFile:
    """A file that is being written; any number of threads may write to it."""

    def __init__(self, descriptor: int, destination: Path, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._destination = destination
        self._size_bytes = size_bytes

    def write(self, raw: memoryview, offset: int) -> None:
        """Write all of `raw`, which the kernel may take in parts, at `offset`.

        Raises:
            ExportFailed: The disk is full, or broken.
        """
        with _explained(self._destination, self._size_bytes):
            while len(raw):
                written = os.pwrite(self._descriptor, raw, offset)
                raw, offset = raw[written:], offset + written


@contextmanager
def reserved_file(destination: Path, size_bytes: int) -> Iterator[ReservedFile]:
    """A new file of zeros beside `destination`, which it replaces at the end, durably.

    Its disk space is taken at once, so that a disk that is too small is an error before any work.
    After an error, an interrupt included, nothing is left and `destination` is what it was.

    Raises:
        ExportFailed: The disk is full, or cannot be written to.
    """
    with _explained(destination, size_bytes):
        destination.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(destination.parent).free
        if free < size_bytes:
            raise _full(destination, size_bytes, free)
        descriptor, name = tempfile.mkstemp(dir=destination.parent, prefix=NEW_PREFIX)
    try:
        with _explained(destination, size_bytes):
            _allocate(descriptor, size_bytes)
        yield ReservedFile(descriptor, destination, size_bytes)
        with _explained(destination, size_bytes):
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
            Path(name).replace(destination)
            _sync_directory(destination.parent)
    except BaseException:  # also an interrupt must not leave the half-written file
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size_bytes)
    else:
        os.ftruncate(descriptor, size_bytes)


@contextmanager
def _explained(destination: Path, size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _full(destination, size_bytes, None) from error
        problem = Problem(
            where=str(destination),
            what="the file cannot be written",
            found=error.strerror,
            remedy="make the directory writable, and lift limits on the size of files",
        )
        raise ExportFailed(problem) from error


def _full(destination: Path, size_bytes: int, free: int | None) -> ExportFailed:
    problem = Problem(
        where=str(destination),
        what="the disk is full",
        expected=f"{_megabytes(size_bytes)} free",
        found=None if free is None else _megabytes(free),
        remedy="make room, or name a directory on another disk",
    )
    return ExportFailed(problem)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
