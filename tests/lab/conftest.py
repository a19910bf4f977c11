"""Emulated boards, and projects whose artifacts run on them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.cli import main
from edgeship.device_tests.lab.address import Address
from edgeship.device_tests.lab.image import LabImage, find_image
from edgeship.device_tests.lab.recipe import EXTRAS_VARIABLE, lab_recipe
from edgeship.device_tests.lab.tools import BOOTING, find_tools
from edgeship.errors import RequirementMissing

Run = Callable[..., tuple[int, Any]]
"""Runs edgeship with these arguments; its exit code and what `--json` tells."""
WriteDevices = Callable[..., Path]

SHARED: Final = Path(__file__).parents[3] / "shared/data"
LLAMA: Final = "llama"
_BOTH: Final = """
[targets.raspberry-pi-4]
formats = ["tflite", "onnx"]
[targets.raspberry-pi-4.budget]
memory = "64 MB"
[targets.raspberry-pi-5]
formats = ["tflite"]
"""
_TINYLM: Final = """\
[model]
name = "tinylm"
hf = "hf"
task = "text-generation"
[model.inputs.text]
tokenizer = "."
length = 512
[evaluation]
data = "heldout.txt"
metric = "perplexity"
[targets.raspberry-pi-4]
formats = ["gguf"]
gguf.precisions = ["q4_0"]
[targets.raspberry-pi-4.budget]
memory = "64 MB"
"""


@pytest.fixture(scope="session")
def lab() -> LabImage:
    """The image of the emulated boards, where QEMU and it are to be had."""
    try:
        find_tools(BOOTING)
    except RequirementMissing as error:
        pytest.skip(f"NO BOARD WAS EMULATED: QEMU cannot be had: {error}")
    found = find_image(lab_recipe())
    if found is None:
        pytest.skip("NO BOARD WAS EMULATED: `edgeship lab build` makes the image")
    return found


@pytest.fixture(scope="session")
def llama() -> Path:
    """llama.cpp for Arm boards, as the image has it."""
    parts = dict(
        part.split("=", 1) for part in os.environ.get(EXTRAS_VARIABLE, "").split(":") if "=" in part
    )
    if LLAMA not in parts:
        pytest.skip(f"NO LLAMA.CPP ON BOARDS: {EXTRAS_VARIABLE} names none, `make test-full` does")
    return Path(parts[LLAMA])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"NO RESNET-20, NO TINYLM ON BOARDS: {SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def resnet20_template(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("resnet20")
    file: Path = import_module("edgeship.tools.bench.rig").make_project(directory, shared_data, ())
    file.write_text(file.read_text() + _BOTH)
    _build(directory)
    return directory


@pytest.fixture
def resnet20(resnet20_template: Path, tmp_path: Path) -> Path:
    """ResNet-20 on CIFAR-10, built; a fresh copy."""
    return _copy(resnet20_template, tmp_path / "resnet20")


@pytest.fixture(scope="session")
def tinylm_template(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tinylm")
    shutil.copytree(shared_data / "tinylm/hf", directory / "hf")
    shutil.copy(shared_data / "tinylm/heldout.txt", directory)
    (directory / "edgeship.toml").write_text(_TINYLM)
    _build(directory)
    return directory


@pytest.fixture
def tinylm(tinylm_template: Path, tmp_path: Path) -> Path:
    """A small trained Llama as q4_0, built; a fresh copy."""
    return _copy(tinylm_template, tmp_path / "tinylm")


@pytest.fixture
def edgeship(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def write_devices(tmp_path: Path) -> WriteDevices:
    """Writes a devices.toml with the board "desk", a raspberry-pi-4."""

    def write(
        address: Address, *, programs: Mapping[str, Path] | None = None, port: int | None = None
    ) -> Path:
        file = tmp_path / "devices.toml"
        named = ", ".join(f'"{name}" = "{path}"' for name, path in (programs or {}).items())
        file.write_text(
            '[devices.desk]\ntransport = "ssh"\ntarget = "raspberry-pi-4"\n'
            f'host = "{address.host}"\nport = {port or address.port}\nuser = "{address.user}"\n'
            f'key = "{address.key}"\nknown_hosts = "{address.known_hosts}"\n'
            f"programs = {{ {named} }}\n"
        )
        return file

    return write


def _build(directory: Path) -> None:
    assert main(["build", "--quiet", "--project", str(directory / "edgeship.toml")]) == 0


def _copy(template: Path, directory: Path) -> Path:
    return Path(shutil.copytree(template, directory, symlinks=True))
