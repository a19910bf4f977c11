"""An upload: which files go where on a board, and what may be done with them there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

PART_SUFFIX: Final = ".part"
"""Files have this name until they are whole."""
_PIECE_BYTES: Final = 4 << 20  # keeps 128 SFTP requests of 32 kB in flight


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One file on its way.

    Attributes:
        source: A file here, or the contents.
        path: Where it will be on the board.
        size_bytes: Of the whole file.
        mode: Permissions there: 755 where it may be run here, else 644.
    """

    source: Path | bytes
    path: PurePosixPath
    size_bytes: int
    mode: int

    def pieces(self) -> Iterator[bytes]:
        """The contents, in pieces of 4 MiB."""
        if isinstance(self.source, bytes):
            yield from (
                self.source[start : start + _PIECE_BYTES]
                for start in range(0, len(self.source), _PIECE_BYTES)
            )
            return
        with self.source.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece


def planned_uploads(files: Mapping[str, Path | bytes], directory: str) -> list[Upload]:
    """The files of `Connection.put`.

    Raises:
        ValueError: A path that leads out of the directory.
        FileNotFoundError: A file that is not here.
    """
    return [_upload(PurePosixPath(name), source, directory) for name, source in files.items()]


def directories_of(uploads: list[Upload], directory: str) -> list[PurePosixPath]:
    """Directories below `directory` that the uploads need, parents first."""
    top = PurePosixPath(directory)
    needed = {parent for it in uploads for parent in it.path.parents if top in parent.parents}
    return sorted(needed, key=lambda path: path.parts)


def _upload(name: PurePosixPath, source: Path | bytes, directory: str) -> Upload:
    if name.is_absolute() or ".." in name.parts or not name.parts:
        message = f"{name} is not a path below {directory}"
        raise ValueError(message)
    path = PurePosixPath(directory) / name
    if isinstance(source, bytes):
        return Upload(source=source, path=path, size_bytes=len(source), mode=0o644)
    status = source.stat()
    mode = 0o755 if status.st_mode & 0o111 else 0o644
    return Upload(source=source, path=path, size_bytes=status.st_size, mode=mode)
