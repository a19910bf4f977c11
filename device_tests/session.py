"""Session: the device of a target, chosen and opened for as long as it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.device_tests.devices import Device, find_device, lab_device
from edgeship.device_tests.devices_file import devices_file, read_devices
from edgeship.device_tests.open_board import OpenBoard, open_session
from edgeship.errors import ConfigurationError, Problem, RequirementMissing
from edgeship.targets import Target

if TYPE_CHECKING:
    from edgeship.story import Story

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
    lab = (LAB, f"{LAB}:{target}")
    is_lab = devices.wanted in lab and devices.wanted not in devices.known
    if devices.wanted is not None and not is_lab:
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
    if is_lab or not own:
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
        from edgeship.device_tests.lab.board import require_board

        require_board(target)
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


def devices_of(option: Path | None, project: Path, wanted: str | None) -> Devices:
    """The devices of the file that holds for a project; none where there is no file.

    Raises:
        ConfigurationError: With everything that is wrong with the file.
    """
    file = devices_file(option, project, os.environ)
    if file is None:
        return Devices(known={}, where="devices.toml (there is none)", wanted=wanted)
    return Devices(known=read_devices(file), where=str(file), wanted=wanted)
