"""A connection over SSH: commands on channels, files over SFTP, each wait with its deadline."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import asyncssh

from edgeship.device_tests.transports.event_loop import EventLoop
from edgeship.device_tests.transports.leash import leashed_command, with_environment
from edgeship.device_tests.transports.output import Lines, Tail
from edgeship.device_tests.transports.protocol import NO_ENVIRONMENT, ConnectionFailed, Ended
from edgeship.device_tests.transports.sftp import read_file, write_files
from edgeship.device_tests.transports.ssh_session import CommandSession
from edgeship.device_tests.transports.troubles import (
    connection_lost,
    deadline_passed,
    refused,
    silent,
)
from edgeship.device_tests.transports.upload import directories_of, planned_uploads

T = TypeVar("T")
GRACE_S: Final = 2.0
"""How long after a deadline we still try to end a command or a connection properly."""


class SshConnection:
    """See `Connection`; made by `SshTransport.connect`."""

    def __init__(self, loop: EventLoop, ssh: asyncssh.SSHClientConnection, where: str) -> None:
        self._loop = loop
        self._ssh = ssh
        self._where = where
        self._sftp: asyncssh.SFTPClient | None = None

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        """See `Connection.run`."""
        lines: SimpleQueue[str | None] = SimpleQueue()
        out = Lines(lines.put) if on_line else Tail()
        future = self._loop.start(self._run(command, deadline_s, environment, out))
        future.add_done_callback(lambda _: lines.put(None))
        try:
            # Lines are given away in the caller's thread, not in that of the event loop.
            while (line := lines.get(timeout=_limit_s(deadline_s))) is not None:
                if on_line:
                    on_line(line)
            return future.result(GRACE_S)
        except (Empty, TimeoutError):
            future.cancel()
            raise deadline_passed(self._where, command[0], deadline_s=deadline_s) from None
        except BaseException:  # an interrupt, or an error of on_line: nobody listens any more
            future.cancel()
            raise

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        """See `Connection.put`."""
        uploads = planned_uploads(files, directory)
        directories = directories_of(uploads, directory)

        async def work() -> None:
            await write_files(await self._files(), uploads, directories)

        try:
            self._finish(work(), "an upload", deadline_s)
        except asyncssh.SFTPError as error:
            raise refused(self._where, f"files below {directory}", error.reason) from error

    def read(self, path: str, *, deadline_s: float) -> bytes:
        """See `Connection.read`."""

        async def work() -> bytes:
            return await read_file(await self._files(), path)

        try:
            return self._finish(work(), f"reading {path}", deadline_s)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise FileNotFoundError(path) from None
        except asyncssh.SFTPError as error:
            raise refused(self._where, path, error.reason) from error

    async def close(self) -> None:
        """Say goodbye, and go where the other side does not answer."""
        self._ssh.close()
        try:
            async with asyncio.timeout(GRACE_S):
                await self._ssh.wait_closed()
        except (TimeoutError, OSError, asyncssh.Error):
            self._ssh.abort()

    def _finish(self, work: Coroutine[Any, Any, T], what: str, deadline_s: float) -> T:
        timed = self._timed(work, what, deadline_s)
        try:
            return self._loop.finish(timed, limit_s=_limit_s(deadline_s))
        except TimeoutError:
            raise deadline_passed(self._where, what, deadline_s=deadline_s) from None

    async def _timed(self, work: Coroutine[Any, Any, T], what: str, deadline_s: float) -> T:
        """Wait for work; a connection on which it failed is not used again."""
        try:
            async with asyncio.timeout(deadline_s):
                return await work
        except TimeoutError:
            self._ssh.abort()
            raise deadline_passed(self._where, what, deadline_s=deadline_s) from None
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.SFTPEOFError) as e:
            raise self._lost(what, e) from e
        except asyncssh.SFTPError:  # an answer: the connection is well
            raise
        except (asyncssh.Error, OSError) as error:
            raise self._lost(what, error) from error

    async def _run(
        self,
        command: Sequence[str],
        deadline_s: float,
        environment: Mapping[str, str],
        out: Lines | Tail,
    ) -> Ended:
        leashed = with_environment(leashed_command(command, deadline_s=deadline_s), environment)
        # exec: the login shell makes room, so that a death by signal comes back as one.
        text = f"exec {shlex.join(leashed)}"
        session = CommandSession(out)
        channel: asyncssh.SSHClientChannel[bytes] | None = None
        try:
            async with asyncio.timeout(deadline_s):
                channel, _ = await self._ssh.create_session(lambda: session, text, encoding=None)
                await session.ended
                is_connected = not self._ssh.is_closed()
        except TimeoutError:
            raise deadline_passed(
                self._where, command[0], deadline_s=deadline_s, heard=session.stderr.close()
            ) from None
        except (asyncssh.Error, OSError) as error:
            raise self._lost(command[0], error) from error
        finally:
            await self._end(channel)
        if not session.is_whole(is_connected=is_connected):
            raise connection_lost(self._where, command[0], "it closed before the command's end")
        return session.result(command)

    async def _end(self, channel: asyncssh.SSHClientChannel[bytes] | None) -> None:
        """End what still runs on a channel: by a signal, and by its stdin (see leash)."""
        if channel is None:  # it may be open over there, with a command that we cannot name
            self._ssh.abort()
            return
        try:
            if not channel.is_closing():
                with suppress(asyncssh.Error, OSError):
                    channel.send_signal("KILL")
            channel.close()
            async with asyncio.timeout(GRACE_S):
                await channel.wait_closed()
        except (asyncssh.Error, OSError):  # TimeoutError is one of these
            self._ssh.abort()
        except asyncio.CancelledError:
            self._ssh.abort()
            raise

    async def _files(self) -> asyncssh.SFTPClient:
        if self._sftp is None:
            try:
                self._sftp = await self._ssh.start_sftp_client()
            except asyncssh.Error:
                if self._ssh.is_closed():
                    raise
                # The connection is well: dropbear without a program for it ends like this.
                reason = "its SSH server has no SFTP (a package like openssh-sftp-server)"
                raise refused(self._where, "file transfers", reason) from None
        return self._sftp

    def _lost(self, what: str, error: Exception) -> ConnectionFailed:
        if "keepalive" in str(error):
            return silent(self._where, what)
        return connection_lost(self._where, what, str(error))


def _limit_s(deadline_s: float) -> float:
    """When to stop believing that work keeps its own deadline."""
    return max(deadline_s, 0) + 3 * GRACE_S
