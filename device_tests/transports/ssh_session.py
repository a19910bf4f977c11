"""A command's session over SSH: takes what the board sends until it says how the command ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncssh

from edgeship.device_tests.transports.output import Lines, Tail
from edgeship.device_tests.transports.protocol import Ended


class CommandSession(asyncssh.SSHClientSession[bytes]):
    """Callbacks of one channel; made on the event loop that serves it.

    Attributes:
        ended: Done when the channel is closed, with the error that closed it if there was one.
        stderr: What the command wrote to it until now.
    """

    def __init__(self, out: Lines | Tail) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stderr = Tail()
        self._out = out
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._status: int | None = None
        self._signal: str | None = None
        self._heard_all = False

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Called first."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Called with each piece of stdout (no type) or stderr."""
        (self.stderr if datatype else self._out).feed(data)

    def eof_received(self) -> bool:
        """Called when all output has come; True keeps our own side open."""
        self._heard_all = True
        return True

    def exit_status_received(self, status: int) -> None:
        """Called when the command has exited; its output may still come."""
        self._status = status
        self._end_rest()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Called instead when a signal ended it."""
        del core_dumped, msg, lang
        self._signal = signal
        self._end_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called last: the channel is closed, for a good reason or a bad one."""
        if self.ended.done():
            return
        if exc is not None:
            self.ended.set_exception(exc)
        else:
            self.ended.set_result(None)

    def is_whole(self, *, is_connected: bool) -> bool:
        """Whether the board said everything, once the channel is closed.

        A server may also close the whole connection without an error. That channel's end counts
        only where the end of its output was heard; asyncssh 2.24 does not pass that on where it
        comes together with the channel's close (measured), hence the other way to be sure.
        """
        has_end = self._status is not None or self._signal is not None
        return has_end and (self._heard_all or is_connected)

    def result(self, command: Sequence[str]) -> Ended:
        """How the command ended; only where everything was heard."""
        return Ended(
            command=tuple(command),
            status=None if self._signal is not None else self._status,
            signal=self._signal,
            stdout=self._out.close(),
            stderr=self.stderr.close(),
        )

    def _end_rest(self) -> None:
        """What the command left behind holds its stdout; the end of stdin ends it (see leash)."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()
