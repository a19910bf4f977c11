"""What a command writes: the last of it, or each line as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

KEPT_BYTES: Final = 1 << 20
"""Of each stream, as `Ended` promises; a line that is longer comes in pieces of this size."""


class Tail:
    """The last bytes of a stream."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._kept += piece
        if len(self._kept) > 2 * self._limit:  # moving the bytes at each piece would be quadratic
            del self._kept[: -self._limit]

    def close(self) -> bytes:
        """The last bytes, at most as many as the limit."""
        return bytes(self._kept[-self._limit :])


class Lines:
    """Lines of a stream, given away without their ends; what is no UTF-8 becomes U+FFFD."""

    def __init__(self, on_line: Callable[[str], None], limit: int = KEPT_BYTES) -> None:
        self._on_line = on_line
        self._limit = limit
        self._rest = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece; gives away each line that is complete with it."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._give(bytes(self._rest) + line)
            self._rest.clear()
        self._rest += rest
        while len(self._rest) >= self._limit:
            self._give(bytes(self._rest[: self._limit]))
            del self._rest[: self._limit]

    def close(self) -> bytes:
        """Give away a last line without an end; nothing is kept."""
        if self._rest:
            self._give(bytes(self._rest))
            self._rest.clear()
        return b""

    def _give(self, line: bytes) -> None:
        self._on_line(line.removesuffix(b"\r").decode("utf-8", "replace"))


def last_line(output: bytes) -> str | None:
    """The last line that is not blank, for messages; None where there is none."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else None
