from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeship.device_tests.devices import Device
from edgeship.device_tests.open_board import open_session
from edgeship.device_tests.session import Devices, choose_device, devices_of
from edgeship.errors import ConfigurationError, UnknownName
from edgeship.vocabulary import Place

KITCHEN = Device(name="kitchen", target="raspberry-pi-4")
SHED = Device(name="shed", target="raspberry-pi-4")
ANY = Device(name="any")


def _devices(*known: Device, wanted: str | None = None) -> Devices:
    return Devices(known={device.name: device for device in known}, where="file", wanted=wanted)


def test_the_only_device_of_a_target_is_taken() -> None:
    assert choose_device("raspberry-pi-4", _devices(KITCHEN, ANY)) == KITCHEN


def test_without_a_device_of_the_target_the_lab_is_taken() -> None:
    assert choose_device("raspberry-pi-5", _devices(KITCHEN, ANY)) is None


def test_the_lab_can_be_asked_for() -> None:
    assert choose_device("raspberry-pi-4", _devices(KITCHEN, wanted="lab")) is None


def test_the_emulated_board_of_the_target_can_be_named() -> None:
    assert choose_device("raspberry-pi-4", _devices(KITCHEN, wanted="lab:raspberry-pi-4")) is None


def test_a_device_may_be_called_lab() -> None:
    own = Device(name="lab")
    assert choose_device("raspberry-pi-4", _devices(own, KITCHEN, wanted="lab")) == own


def test_a_device_of_no_target_can_be_asked_for() -> None:
    assert choose_device("raspberry-pi-4", _devices(KITCHEN, ANY, wanted="any")) == ANY


def test_of_several_devices_one_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="kitchen, shed; name one with --device"):
        choose_device("raspberry-pi-4", _devices(KITCHEN, SHED))


def test_a_device_of_another_target_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="kitchen is no cortex-a53"):
        choose_device("cortex-a53", _devices(KITCHEN, wanted="kitchen"))


def test_an_unknown_device_says_which_there_are() -> None:
    with pytest.raises(UnknownName, match="did you mean 'kitchen'"):
        choose_device("raspberry-pi-4", _devices(KITCHEN, wanted="kitchn"))


def test_without_a_file_there_are_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESHIP_DEVICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert devices_of(None, tmp_path, "lab").known == {}


def test_a_session_knows_the_board_and_leaves_nothing_on_it(tmp_path: Path) -> None:
    packages, runs = tmp_path / "packages", tmp_path / "runs"
    for name in ("ai_edge_litert", "llama_cpp", "onnxruntime"):  # the real ones take seconds
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text("__version__ = '9'\n")
    runs.mkdir()
    environment = {"PYTHONPATH": str(packages)}
    device = Device(
        name="here", python=sys.executable, directory=str(runs), environment=environment
    )
    with open_session(device) as board:
        assert Path(board.directory).parent == runs
        assert board.place is Place.DEVICE
        assert board.facts.python == ".".join(str(part) for part in sys.version_info[:3])
        assert "onnxruntime" in {found.name for found in board.facts.runtimes}
        assert board.where()["device"] == "here"
        assert "emulated" not in board.where()
    assert list(runs.iterdir()) == []
