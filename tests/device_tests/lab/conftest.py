import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeship.device_tests.lab.image import LAB_VARIABLE, LabImage, find_image
from edgeship.device_tests.lab.recipe import lab_recipe
from edgeship.device_tests.lab.tools import BOOTING, find_tools
from edgeship.errors import RequirementMissing

MIB = 1 << 20


@pytest.fixture
def lab_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lab"
    monkeypatch.setenv(LAB_VARIABLE, str(folder))
    return folder


@pytest.fixture
def write_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a program that is found before those of the machine."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.fixture
def made_up_image(tmp_path: Path) -> LabImage:
    """Files by the names of an image, for programs that do not boot them."""
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("vmlinuz", "initrd", "disk.ext4", "client_key"):
        (folder / name).write_bytes(b"x")
    (folder / "host_key.pub").write_text("ssh-ed25519 AAAA\n")
    (folder / "image.json").write_text('{"packages": [], "wheels": [], "build_s": 1.0}')
    return LabImage(folder=folder, key="image", packages=(), wheels=(), build_s=1.0)


@pytest.fixture(scope="session")
def image() -> LabImage:
    """The real one, where `make fixtures` or `edgeship lab build` has made it."""
    try:
        find_tools(BOOTING)
    except RequirementMissing as error:
        pytest.skip(str(error))
    found = find_image(lab_recipe())
    if found is None:
        pytest.skip("no image of the emulated boards: `edgeship lab build` makes it")
    return found
