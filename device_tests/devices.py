"""Device: one board, real or emulated, and how to reach and use it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from edgeship.device_tests.lab.address import Address
from edgeship.device_tests.transports.protocol import Transport
from edgeship.device_tests.transports.registry import TRANSPORTS
from edgeship.errors import Problem, RequirementMissing, UnknownName
from edgeship.targets.board_facts import BoardFacts
from edgeship.vocabulary import Place

SSH_PORT: Final = 22
RUNS_DIRECTORY: Final = "/var/tmp"
"""Where runs go unless a device says otherwise: on disk, where /tmp may be memory."""


class Way(StrEnum):
    """How a device is reached."""

    LOCAL = "local"
    SSH = "ssh"


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """Where SSH answers.

    Attributes:
        host: Name or address.
        key: Private key; None for the agent's and the usual files.
        known_hosts: Where the board's host key is looked up.
        is_agent_allowed: Whether keys of the agent are offered too; a board may refuse a login
            after a few that it does not know.
    """

    host: str
    user: str
    known_hosts: Path
    port: int = SSH_PORT
    key: Path | None = None
    is_agent_allowed: bool = True


@dataclass(frozen=True, kw_only=True)
class Device:
    """One board.

    Attributes:
        name: In devices.toml, or that of the lab's board.
        target: Row of the catalogue that it is one of; None where nobody said.
        address: For SSH; None for the machine that edgeship runs on.
        python: On the board: a name on its PATH, or a path.
        environment: Of what runs there, word for word.
        directory: On the board: where runs get directories of their own.
        programs: Runtime programs of this machine that are copied along, by runtime.
        place: What its measurements are: of a device, or emulated.
    """

    name: str
    target: str | None = None
    address: SshAddress | None = None
    python: str = "python3"
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = RUNS_DIRECTORY
    programs: Mapping[str, Path] = field(default_factory=dict)
    place: Place = Place.DEVICE

    def transport(self) -> Transport:
        """The way to it; nothing is connected yet, and no package for SSH imported before.

        Raises:
            RequirementMissing: The package for SSH is not installed.
        """
        address = self.address
        if address is None:
            return _make(Way.LOCAL)
        return _make(
            Way.SSH,
            host=address.host,
            port=address.port,
            user=address.user,
            key=address.key,
            known_hosts=address.known_hosts,
            is_agent_allowed=address.is_agent_allowed,
        )

    def place_by(self, facts: BoardFacts) -> Place:
        """Where its evidence was taken: what the probe calls emulated is, whatever was declared."""
        return Place.EMULATED if facts.is_emulated else self.place


def lab_device(name: str, address: Address, *, target: str | None) -> Device:
    """An emulated board of the lab."""
    return Device(
        name=name,
        target=target,
        address=SshAddress(
            host=address.host,
            port=address.port,
            user=address.user,
            key=address.key,
            known_hosts=address.known_hosts,
            is_agent_allowed=False,
        ),
        place=Place.EMULATED,
    )


def find_device(name: str, devices: Mapping[str, Device], *, where: str) -> Device:
    """The device of that name; raises UnknownName, which says `where` they are written."""
    if name not in devices:
        raise UnknownName(kind="device", name=name, choices=tuple(devices), where=where)
    return devices[name]


def _make(name: Way, **arguments: Any) -> Transport:  # noqa: ANN401  each has its own
    path, _, attribute = TRANSPORTS[name].partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        problem = Problem(
            where=f"transport {name}",
            what="a package for it is not installed",
            found=str(error),
            remedy="pip install 'edgeship[devices]'",
        )
        raise RequirementMissing(problem) from error
    transport: Transport = getattr(module, attribute)(**arguments)
    return transport
