"""Address: how to reach an emulated board over SSH."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOARD_USER: Final = "edgeship"
"""Plain user of every emulated board, with the same key as root."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where SSH answers, and with which keys.

    Attributes:
        host: Always the loopback interface.
        port: Forwarded to port 22 of the board.
        user: `edgeship`, or `root` for what installs.
        key: Private key of the client, readable by its owner only.
        known_hosts: One line, the board's own host key under this host and port.
    """

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path
