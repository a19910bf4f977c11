"""Writes that happen whole or not at all: files, directories, and the lock of a project."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100  # linux/fcntl.h
_RENAME_EXCHANGE: Final = 2  # renameat2(2), linux/fs.h
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
NEW_PREFIX: Final = ".new-"
OLD_PREFIX: Final = ".old-"


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically and durably; its directory is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=NEW_PREFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:  # also an interrupt must not leave the half-written file
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def sync_tree(directory: Path) -> None:
    """Force every file and directory below `directory`, and itself, to the disk."""
    for path in (*directory.rglob("*"), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def install_directory(new: Path, destination: Path) -> None:
    """Put the directory `new` in the place of `destination` as a whole, durably.

    On Linux the two are exchanged in one system call, so that a reader (or a crash) meets either
    the old directory or the new one. Elsewhere the old one is renamed aside first;
    `recover_directories` puts it back if the process dies between the two renames.

    Args:
        new: A complete directory on the same file system; gone afterwards.
        destination: Where it belongs; may exist or not.
    """
    sync_tree(new)
    if not destination.exists():
        new.rename(destination)
    elif _exchange(new, destination):
        _remove(new)
    else:
        aside = destination.with_name(OLD_PREFIX + destination.name)
        destination.rename(aside)
        try:
            new.rename(destination)
        except BaseException:  # also an interrupt must put the old one back
            aside.rename(destination)
            raise
        _remove(aside)
    _sync_directory(destination.parent)


def recover_directories(parent: Path) -> None:
    """Undo what a killed process left in `parent`: half-written ones go, ones set aside return."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        if path.name.startswith(NEW_PREFIX):
            _remove(path)
        elif path.name.startswith(OLD_PREFIX):
            destination = path.with_name(path.name.removeprefix(OLD_PREFIX))
            if destination.exists():
                _remove(path)
            else:
                path.rename(destination)


@contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
    """A fresh `.new-<id>` directory in `parent`, removed on the way out if it still exists."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent, prefix=NEW_PREFIX))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def project_lock(file: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the exclusive lock of a project (flock(2)); waits for another holder to finish.

    Args:
        file: The lock file; made if absent, holds the holder's process id.
        on_wait: Told the holder's process id, once, when there is one to wait for.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            on_wait(handle.read().strip() or "unknown")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths with renameat2(RENAME_EXCHANGE); False where system or disk cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
