from __future__ import annotations

import builtins
import sys
from pathlib import Path

import pytest

from edgeship.device_tests.devices import Device, SshAddress, find_device, lab_device
from edgeship.device_tests.lab.address import Address
from edgeship.errors import RequirementMissing, UnknownName
from edgeship.targets.board_facts import BoardFacts
from edgeship.vocabulary import Place

SSH = SshAddress(host="10.0.0.7", user="pi", port=2222, known_hosts=Path("/etc/known"))


def test_a_device_without_an_address_is_this_machine() -> None:
    with Device(name="here").transport().connect() as connection:
        ended = connection.run(["echo", "hello"], deadline_s=10)
    assert ended.stdout == b"hello\n"


def test_an_address_is_reached_over_ssh() -> None:
    pytest.importorskip("asyncssh")
    transport = Device(name="pi4", address=SSH).transport()
    assert transport.where == "ssh pi@10.0.0.7:2222"


def test_without_its_package_ssh_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without_asyncssh(name: str, *arguments: object) -> object:
        if name == "asyncssh":
            raise ModuleNotFoundError(name)
        return import_module(name, *arguments)  # type: ignore[arg-type]  # passed on as they came

    for name in [name for name in sys.modules if "transports.ssh" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_asyncssh)
    with pytest.raises(RequirementMissing, match=r"pip install 'edgeship\[devices\]'"):
        Device(name="pi4", address=SSH).transport()


def test_a_board_of_the_lab_is_emulated() -> None:
    address = Address(
        host="127.0.0.1",
        port=40022,
        user="edgeship",
        key=Path("/lab/key"),
        known_hosts=Path("/lab/known_hosts"),
    )
    device = lab_device("lab:pi4", address, target="raspberry-pi-4")
    assert device.place is Place.EMULATED
    assert device.address == SshAddress(
        host="127.0.0.1",
        port=40022,
        user="edgeship",
        key=Path("/lab/key"),
        known_hosts=Path("/lab/known_hosts"),
        is_agent_allowed=False,
    )


def test_what_the_probe_calls_emulated_is() -> None:
    device = Device(name="pi4", address=SSH)
    assert device.place_by(BoardFacts(at="")) is Place.DEVICE
    assert device.place_by(BoardFacts(at="", is_emulated=True)) is Place.EMULATED


def test_an_unknown_device_names_the_others() -> None:
    devices = {"pi4": Device(name="pi4"), "pi5": Device(name="pi5")}
    assert find_device("pi5", devices, where="devices.toml").name == "pi5"
    with pytest.raises(UnknownName, match="unknown device 'pi6': expected pi4, pi5"):
        find_device("pi6", devices, where="devices.toml")
