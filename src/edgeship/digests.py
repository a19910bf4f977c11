"""SHA-256 of files and of JSON values, and a memory of file digests that survives the process."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Final

from edgeship.exchange import write_file

_BLOCK_BYTES: Final = 1 << 20
_RACY_NS: Final = 1_000_000_000
"""A file changed less than a second ago may change again within one tick of its clock."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: object) -> bytes:
    """The one UTF-8 form of a JSON value: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def json_sha256(value: object) -> str:
    """Hex SHA-256 of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class DigestMemory:
    """File digests, remembered by (path, size, mtime_ns, inode) in one JSON file.

    A file that changed within the last second is hashed again each time, because a second write
    within one tick of the file system's clock would not show.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[int | str]] = _read_known(file)
        self._is_changed = False

    def sha256(self, path: Path) -> str:
        """Hex SHA-256 of the file's present bytes."""
        stat = path.stat()
        identity: list[int | str] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        key = str(path.absolute())
        known = self._known.get(key)
        if known is not None and known[:3] == identity:
            return str(known[3])
        is_settled = time.time_ns() - stat.st_mtime_ns > _RACY_NS  # as of before it was read
        digest = file_sha256(path)
        if is_settled:
            self._known[key] = [*identity, digest]
            self._is_changed = True
        return digest

    def save(self) -> None:
        """Write what was learnt, if anything was."""
        if self._is_changed:
            write_file(self._file, canonical_json(self._known))
            self._is_changed = False


def _read_known(file: Path) -> dict[str, list[int | str]]:
    """The remembered digests; a missing or damaged memory is an empty one: it is only a cache."""
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: row for key, row in known.items() if isinstance(row, list) and len(row) == 4}
