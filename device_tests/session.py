"""Session: the device of a target, chosen, reached and probed for as long as it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.device_tests.devices import Device, find_device, lab_device
from edgeship.device_tests.devices_file import devices_file, read_devices
from edgeship.errors import ConfigurationError, IntegrityRefused, Problem, RequirementMissing
from edgeship.targets import Target
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility_binaries import binary_problems
from edgeship.vocabulary import Place

if TYPE_CHECKING:
    from edgeship.device_tests.lab.board import LabBoard
    from edgeship.device_tests.transports.protocol import Connection
    from edgeship.story import Story

_PROGRAMS: Final = "programs"
_COPY_S: Final = 900.0
"""A choice: of copying runtime programs."""
LAB: Final = "lab"
"""What `--device` calls the emulated board of a target."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that may be used.

    Attributes:
        known: By name, of devices.toml; none where there is no such file.
        where: The file, for messages.
        wanted: The one that was asked for; None for whatever suits a target.
    """

    known: Mapping[str, Device]
    where: str
    wanted: str | None = None


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
def open_board(
    target: Target,
    devices: Devices,
    story: Story,
    *,
    counts: bool = False,
    forces: bool = False,
) -> Iterator[OpenBoard]:
    """Reach the device of a target: the one that was asked for, the target's own, or the lab's.

    Args:
        target: Whose artifacts are to run.
        devices: That there are.
        story: Told which one it is.
        counts: An emulated board is to count instructions: its clock then is no clock.
        forces: Whether programs are brought along that do not seem to run there.

    Raises:
        ConfigurationError: No such device, or several that would do.
        RequirementMissing: None is there, or it cannot be reached.
    """
    device = choose_device(target.name, devices)
    if device is not None:
        story.say(f"device    {target.name} is {device.name}, {device.transport().where}")
        with open_session(device, forces=forces) as board:
            yield board
        return
    with open_emulated(target.name, story, counts=counts) as board:
        yield board


def choose_device(target: str, devices: Devices) -> Device | None:
    """The device for a target; None for the emulated one.

    Raises:
        ConfigurationError: The one that was asked for is unknown or of another target; or nobody
            asked, and several are of this one.
    """
    if devices.wanted is not None and (devices.wanted in devices.known or devices.wanted != LAB):
        device = find_device(devices.wanted, devices.known, where=devices.where)
        if device.target not in (None, target):
            problem = Problem(
                where=f"{devices.where}: devices.{device.name}.target",
                what=f"{device.name} is no {target}",
                expected=repr(target),
                found=repr(device.target),
                remedy=f"name a device of {target}, or test {device.target} alone",
            )
            raise ConfigurationError(problem)
        return device
    own = [device for device in devices.known.values() if device.target == target]
    if devices.wanted == LAB or not own:
        return None
    if len(own) > 1:
        problem = Problem(
            where=devices.where,
            what=f"several devices are of {target}",
            found=", ".join(device.name for device in own),
            remedy="name one with --device",
        )
        raise ConfigurationError(problem)
    return own[0]


def open_named(devices: Devices, story: Story) -> AbstractContextManager[OpenBoard]:
    """The device that is wanted, whatever its target; `lab:TARGET` is an emulated board.

    Raises:
        UnknownName: No such device.
        RequirementMissing: It cannot be reached.
    """
    name = devices.wanted or ""
    lab, _, target = name.partition(":")
    if name not in devices.known and lab == LAB and target:
        return open_emulated(target, story)
    return open_session(find_device(name, devices.known, where=devices.where))


@contextmanager
def open_emulated(name: str, story: Story, *, counts: bool = False) -> Iterator[OpenBoard]:
    """Turn the emulated board of a target on, and off at the end; see `open_board`."""
    from edgeship.device_tests.lab.board import lab_board, lab_boards
    from edgeship.device_tests.lab.boot import boot
    from edgeship.device_tests.lab.image import open_image
    from edgeship.device_tests.lab.recipe import lab_recipe

    if name not in lab_boards():
        problem = Problem(
            where=name,
            what="no device is at hand, and this board cannot be emulated",
            expected=f"a device with target = {name!r} in devices.toml",
            remedy="write one (docs/devices-toml.md), or name it with --device",
        )
        raise RequirementMissing(problem)
    emulation = lab_board(name)
    image = open_image(lab_recipe())
    story.say(f"device    {name} is emulated by QEMU -cpu {emulation.cpu}")
    with boot(emulation, image, counting=counts) as running:
        device = lab_device(f"{LAB}:{name}", running.address(), target=name)
        with open_session(device, emulation=emulation, is_counting=counts) as board:
            yield board


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


def devices_of(option: Path | None, project: Path, wanted: str | None) -> Devices:
    """The devices of the file that holds for a project; none where there is no file.

    Raises:
        ConfigurationError: With everything that is wrong with the file.
    """
    file = devices_file(option, project, os.environ)
    if file is None:
        return Devices(known={}, where="devices.toml", wanted=wanted)
    return Devices(known=read_devices(file), where=str(file), wanted=wanted)
