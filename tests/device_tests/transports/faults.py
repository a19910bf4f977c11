"""A loopback proxy that breaks connections: it cuts, stalls, corrupts or half-closes them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from random import Random

Kind = Literal["cut", "stall", "corrupt", "half-close"]
KINDS: Final[tuple[Kind, ...]] = ("cut", "stall", "corrupt", "half-close")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one connection after so many bytes of one direction."""

    kind: Kind
    is_upward: bool  # from the client to the server
    after_bytes: int


def random_fault(source: Random, *, up_bytes: int, down_bytes: int) -> Fault:
    """A fault somewhere in a conversation of that length; half of them while it is young."""
    is_upward = source.random() < 0.5
    length = up_bytes if is_upward else down_bytes
    scale = source.random() if source.random() < 0.5 else source.random() ** 6
    return Fault(kind=source.choice(KINDS), is_upward=is_upward, after_bytes=int(length * scale))


class FaultyProxy:
    """Forwards to a port of this machine; the n-th connection meets the n-th fault, if any."""

    def __init__(self, port: int, faults: Sequence[Fault | None]) -> None:
        self._target = port
        self._faults = list(faults)
        self._closed = Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.struck: list[Fault] = []
        self.connections = 0
        self.carried = {True: 0, False: 0}  # bytes, by is_upward

    def __enter__(self) -> FaultyProxy:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for it in self._sockets:
            _shut(it, socket.SHUT_RDWR)
            it.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = self._faults[self.connections] if self.connections < len(self._faults) else None
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for it in (client, server):
                it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stalled = Event()
            for is_upward, here, there in ((True, client, server), (False, server, client)):
                mine = fault if fault and fault.is_upward == is_upward else None
                arguments = (here, there, is_upward, mine, stalled)
                Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(
        self,
        here: socket.socket,
        there: socket.socket,
        is_upward: bool,
        fault: Fault | None,
        stalled: Event,
    ) -> None:
        passed = 0
        with suppress(OSError):
            while piece := here.recv(1 << 16):
                if stalled.is_set():
                    continue  # the network is gone: nobody hears anything, not even an end
                if fault is not None and passed + len(piece) > fault.after_bytes:
                    self.struck.append(fault)
                    at = fault.after_bytes - passed
                    if fault.kind == "corrupt":
                        piece = piece[:at] + bytes([piece[at] ^ 0x40]) + piece[at + 1 :]
                        fault = None
                    else:
                        there.sendall(piece[:at])
                        self._break(fault.kind, here, there, stalled)
                        continue
                there.sendall(piece)
                passed += len(piece)
                self.carried[is_upward] += len(piece)
        if not stalled.is_set():
            _shut(there, socket.SHUT_WR)

    @staticmethod
    def _break(kind: Kind, here: socket.socket, there: socket.socket, stalled: Event) -> None:
        if kind == "stall":
            stalled.set()
        elif kind == "cut":
            _shut(here, socket.SHUT_RDWR)
            _shut(there, socket.SHUT_RDWR)
        else:
            _shut(there, socket.SHUT_WR)
            raise BrokenPipeError  # this direction has ended, the other one goes on


def _shut(it: socket.socket, how: int) -> None:
    with suppress(OSError):
        it.shutdown(how)
