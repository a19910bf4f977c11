"""Files over SFTP: several at once, many requests each, under their names only when whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

import asyncssh

from edgeship.device_tests.transports.upload import PART_SUFFIX, Upload

_FILES_AT_ONCE: Final = 8  # a golden pack is many small files: each costs six round trips


async def write_files(
    sftp: asyncssh.SFTPClient, uploads: Sequence[Upload], directories: Sequence[PurePosixPath]
) -> None:
    """Write files in directories of which the missing ones are made, parents first.

    Raises:
        asyncssh.SFTPError: The first that went wrong; the others are given up.
    """
    for directory in directories:
        if not await sftp.isdir(str(directory)):
            await sftp.mkdir(str(directory))
    turns = asyncio.Semaphore(_FILES_AT_ONCE)

    async def write(upload: Upload) -> None:
        async with turns:
            await _write_file(sftp, upload)

    try:
        async with asyncio.TaskGroup() as group:
            for upload in uploads:
                group.create_task(write(upload))
    except* (asyncssh.Error, OSError) as errors:
        first = errors.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        reason = first
    else:
        return
    raise reason


async def read_file(sftp: asyncssh.SFTPClient, path: str) -> bytes:
    """Contents of a file."""
    async with sftp.open(path, "rb") as file:
        return await file.read()


async def _write_file(sftp: asyncssh.SFTPClient, upload: Upload) -> None:
    path, part = str(upload.path), f"{upload.path}{PART_SUFFIX}"
    offset = 0
    async with sftp.open(part, "wb") as file:
        for piece in upload.pieces():
            await file.write(piece, offset)
            offset += len(piece)
    found = (await sftp.stat(part)).size
    if found != upload.size_bytes:
        reason = f"{path} arrived with {found} of {upload.size_bytes} bytes"
        raise asyncssh.SFTPFailure(reason)
    await sftp.chmod(part, upload.mode)
    try:
        await sftp.posix_rename(part, path)
    except asyncssh.SFTPOpUnsupported:  # an extension of OpenSSH; SFTP 3 itself never replaces
        if await sftp.exists(path):
            await sftp.remove(path)
        await sftp.rename(part, path)
