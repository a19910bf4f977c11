"""Archive: writes a tar whose bytes follow from its contents alone, and checks each file."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError, IntegrityRefused, Problem
from edgeship.exchange import NEW_PREFIX

_EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"  # reproducible-builds.org/specs/source-date-epoch
_FILE_MODE: Final = 0o644
_PROGRAM_MODE: Final = 0o755


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of an archive: where its bytes are, and which ones they must be."""

    name: str
    source: Path | bytes
    size_bytes: int
    sha256: str
    is_program: bool = False

    @classmethod
    def from_bytes(cls, name: str, content: bytes, *, is_program: bool = False) -> Entry:
        """An entry of bytes that are here."""
        return cls(
            name=name,
            source=content,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            is_program=is_program,
        )


def write_archive(path: Path, top: str, entries: Sequence[Entry]) -> str:
    """Write `entries` below the directory `top` of a tar, sorted; atomically and durably.

    Owner is 0, the time 0 or SOURCE_DATE_EPOCH: a board without a clock that keeps time would
    warn of times in its future. The form is GNU tar's, which busybox reads too.

    Returns:
        SHA-256 of the archive.

    Raises:
        IntegrityRefused: A file is not the one that its entry describes; nothing was written.
        ConfigurationError: The archive cannot be written there.
    """
    mtime = _mtime()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=NEW_PREFIX)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, top, entries, mtime)
            _flush(file, path)
        digest = file_sha256(Path(name))
        Path(name).chmod(_FILE_MODE)
        Path(name).replace(path)
    except BaseException:  # also an interrupt must not leave the half-written archive
        Path(name).unlink(missing_ok=True)
        raise
    return digest


def _write(file: BinaryIO, top: str, entries: Sequence[Entry], mtime: int) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in sorted(entries, key=lambda entry: entry.name):
            member = tarfile.TarInfo(f"{top}/{entry.name}")
            member.size = entry.size_bytes
            member.mtime = mtime
            member.mode = _PROGRAM_MODE if entry.is_program else _FILE_MODE
            _add(archive, member, entry)


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry) -> None:
    """Copy what the entry names; it may have changed since it was described."""
    try:
        with _open(entry.source) as source:
            reader = _HashingReader(source)
            archive.addfile(member, reader)
            is_longer = bool(source.read(1))
    except FileNotFoundError:
        found = "no such file"
    except OSError as error:
        if error.errno is not None:  # of the disk; tarfile's own has no number
            raise _unwritable(Path(member.name), error) from error
        found = "fewer bytes"
    else:
        found = "more bytes" if is_longer else reader.digest.hexdigest()
    if found != entry.sha256:
        problem = Problem(
            where=str(entry.source) if isinstance(entry.source, Path) else entry.name,
            what="the file is not the one that was built",
            expected=f"sha256 {entry.sha256}",
            found=found,
            remedy="run `edgeship build` again",
        )
        raise IntegrityRefused(problem)


class _HashingReader(io.RawIOBase):
    """Reads a file, and keeps the digest of what was read."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        block = self._source.read(size)
        self.digest.update(block)
        return block


def _open(source: Path | bytes) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _flush(file: BinaryIO, path: Path) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def _mtime() -> int:
    text = os.environ.get(_EPOCH_VARIABLE, "0")
    if text.isascii() and text.isdecimal() and int(text) < 8**11:  # what tar's field holds
        return int(text)
    problem = Problem(
        where=_EPOCH_VARIABLE,
        what="the variable is no time",
        expected="whole seconds since 1970",
        found=repr(text),
        remedy="unset it, or set it to the time of the last commit",
    )
    raise ConfigurationError(problem)


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    problem = Problem(
        where=str(path),
        what="the archive cannot be written",
        found=error.strerror or str(error),
        remedy="make room, or name another directory",
    )
    return ConfigurationError(problem)
