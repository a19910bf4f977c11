"""Open board: one device, reached and probed, with a directory for the run that uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.device_tests.devices import Device
from edgeship.device_tests.transports.output import last_line
from edgeship.device_tests.transports.protocol import Connection, ConnectionFailed
from edgeship.device_tests.transports.troubles import refused
from edgeship.errors import EdgeshipError, IntegrityRefused, Problem
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility_binaries import binary_problems
from edgeship.vocabulary import Place

if TYPE_CHECKING:
    from edgeship.device_tests.lab.board import LabBoard

_PROGRAMS: Final = "programs"
_COPY_S: Final = 900.0
"""A choice: of copying runtime programs."""
_STEP_S: Final = 60.0
"""A choice: of making or removing a directory on a busy board."""


@dataclass(frozen=True, kw_only=True)
class OpenBoard:
    """One device while it is used.

    Attributes:
        device: How it is reached and used.
        connection: To it.
        directory: Of this run, on the board.
        facts: What the probe found.
        archive: The program of boards, as it was put there.
        brought: Runtime programs that came along.
        misfits: Why these do not run there, where they came along by force.
        emulation: What emulates it; None for a real board.
        is_counting: Whether its clock counts instructions.
    """

    device: Device
    connection: Connection
    directory: str
    facts: BoardFacts
    archive: bytes
    brought: Sequence[FoundRuntime] = ()
    misfits: Sequence[Problem] = ()
    emulation: LabBoard | None = None
    is_counting: bool = False

    @property
    def place(self) -> Place:
        """Where what is measured on it was measured."""
        return self.device.place_by(self.facts)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of what runs there."""
        return self.device.environment

    def program(self, runtime: str) -> str | None:
        """Path of the program that is that runtime there; None where it is a package."""
        found = [item for item in (*self.brought, *self.facts.runtimes) if item.name == runtime]
        return found[0].path if found else None

    @contextmanager
    def folder(self, name: str) -> Iterator[str]:
        """A directory below that of the run, gone afterwards, so that big files do not add up.

        Where the connection is lost it stays until the run's own directory goes.

        Raises:
            RequirementMissing: The board refuses to make it.
        """
        path = f"{self.directory}/{name}"
        made = self.connection.run(["mkdir", path], deadline_s=_STEP_S)
        if not made.is_ok:
            raise refused(self.device.name, f"to make {path}", last_line(made.stderr) or "")
        try:
            yield path
        except ConnectionFailed:
            raise
        except EdgeshipError:
            self._remove(path)
            raise
        self._remove(path)

    def _remove(self, path: str) -> None:
        self.connection.run(["rm", "-rf", path], deadline_s=_STEP_S)

    def where(self) -> dict[str, str]:
        """`cpu`, `os`, `device` and `board` of evidence; `emulated` says by what, where it is."""
        facts = self.facts
        known = {
            "cpu": facts.cpu,
            "os": facts.os,
            "device": self.device.name,
            "board": facts.model,
            "emulated": self._emulated_by(),
        }
        return {key: value for key, value in known.items() if value is not None}

    def _emulated_by(self) -> str | None:
        if self.emulation is not None:
            return f"QEMU -cpu {self.emulation.cpu} -m {self.emulation.memory_bytes >> 20}M"
        return "QEMU, by what the board says of itself" if self.facts.is_emulated else None


@contextmanager
def open_session(
    device: Device,
    *,
    emulation: LabBoard | None = None,
    is_counting: bool = False,
    forces: bool = False,
) -> Iterator[OpenBoard]:
    """Connect to a device, make this run a directory there, probe it, and bring its programs along.

    Raises:
        RequirementMissing: It cannot be reached.
        IntegrityRefused: A program that would be brought along cannot run there.
    """
    from edgeship.device_tests.board_archive import archive_bytes
    from edgeship.device_tests.probe.probe import probe
    from edgeship.device_tests.transports.run_directory import run_directory

    archive = archive_bytes()
    with run_directory(device.transport(), device.directory) as (connection, directory):
        facts = probe(
            connection,
            directory=directory,
            archive=archive,
            python=device.python,
            environment=device.environment,
        )
        problems = _program_problems(device, facts)
        if problems and not forces:
            raise IntegrityRefused(*problems)
        yield OpenBoard(
            device=device,
            connection=connection,
            directory=directory,
            facts=facts,
            archive=archive,
            brought=_bring(connection, directory, device),
            misfits=problems,
            emulation=emulation,
            is_counting=is_counting,
        )


def _program_problems(device: Device, facts: BoardFacts) -> list[Problem]:
    """Why the board cannot run the device's programs, by their files: nothing was copied yet."""
    if not device.programs:
        return []
    from edgeship.targets.elf import scan_elf

    needs = [scan_elf(path) for path in device.programs.values()]
    return [problem for need in needs for problem in binary_problems(need, facts)]


def _bring(connection: Connection, directory: str, device: Device) -> tuple[FoundRuntime, ...]:
    """Copy the device's programs."""
    if not device.programs:
        return ()
    files: dict[str, Path | bytes] = {
        f"{_PROGRAMS}/{name}": path for name, path in device.programs.items()
    }
    connection.put(files, directory, deadline_s=_COPY_S)
    return tuple(
        FoundRuntime(
            name=name, version=None, kind="program", path=f"{directory}/{_PROGRAMS}/{name}"
        )
        for name in device.programs
    )
