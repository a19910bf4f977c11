"""Archive: what a zip file claims of itself, held against its size before anything inflates it."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, IntegrityRefused, Problem

LARGEST_RATIO: Final = 20
"""A choice: torch stores members uncompressed, and deflated weights, zeros included, are far below;
deflate itself ends at 1032 (zlib, "Technical Details", Maximum Compression Factor)."""
SLACK_BYTES: Final = 1 << 20
"""Likewise: a tiny file of zeros may claim as much."""
_LOCAL_HEADER: Final = b"PK\x03\x04"
"""APPNOTE.TXT 4.3.7; torch takes a file that begins with it for a zip (torch/serialization.py)."""
_VENDOR_ERRORS: Final = (
    zipfile.BadZipFile,
    NotImplementedError,
    OSError,
    ValueError,
    OverflowError,
    IndexError,
    struct.error,
)


def is_archive(path: Path) -> bool:
    """Whether torch would read the file as a zip."""
    with path.open("rb") as file:
        return file.read(len(_LOCAL_HEADER)) == _LOCAL_HEADER


def check_archive(path: Path) -> None:
    """Refuse a zip whose members claim what a file of its size does not hold.

    Reads the directory at its end and no member; memory is that directory.

    Raises:
        ConfigurationError: The directory cannot be read.
        IntegrityRefused: Members that inflate out of proportion, overlap, or share a name.
    """
    size_bytes = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _VENDOR_ERRORS as error:
        raise damaged(path, str(error) or type(error).__name__) from error
    problems = list(_problems(path, members, size_bytes))
    if problems:
        raise IntegrityRefused(*problems)


def damaged(path: Path, found: str) -> ConfigurationError:
    """The error of a file that cannot be read."""
    problem = Problem(
        where=str(path),
        what="the file cannot be read",
        found=found[:200],
        remedy="copy or save it again: it is damaged, cut short, or of another kind than its name",
    )
    return ConfigurationError(problem)


def _problems(path: Path, members: Sequence[zipfile.ZipInfo], size_bytes: int) -> Iterator[Problem]:
    remedy = "do not use the file: no program that saves models writes this"
    stored = sum(member.compress_size for member in members)
    inflated = sum(member.file_size for member in members)
    limit = LARGEST_RATIO * size_bytes + SLACK_BYTES
    if stored > size_bytes:
        yield Problem(
            where=str(path),
            what="members of the archive overlap, or lie outside of it",
            expected=f"at most {size_bytes} bytes in all",
            found=f"{stored} bytes",
            remedy=remedy,
        )
    elif inflated > limit:
        yield Problem(
            where=str(path),
            what="the archive claims to hold more than it can",
            expected=f"at most {LARGEST_RATIO} times its {size_bytes} bytes",
            found=f"{inflated} bytes",
            remedy=remedy,
        )
    names = [member.filename.casefold() for member in members]  # torch's reader folds them too
    if len(set(names)) < len(names):
        yield Problem(
            where=str(path),
            what="two members of the archive have one name",
            expected="each name once",
            remedy=remedy,
        )
