import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeship.device_tests.lab.debian import SOURCES_VARIABLE
from edgeship.device_tests.lab.image import build_image, find_image, open_image
from edgeship.device_tests.lab.recipe import lab_recipe
from edgeship.errors import RequirementMissing

WriteProgram = Callable[[str, str], Path]
BUILD = (
    "from edgeship.device_tests.lab.image import build_image\n"
    "from edgeship.device_tests.lab.recipe import lab_recipe\n"
    "build_image(lab_recipe({}))\n"
)


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sources.list"
    file.write_text("deb file:/nowhere bookworm main\n")
    monkeypatch.setenv(SOURCES_VARIABLE, str(file))


@pytest.fixture(autouse=True)
def programs(write_program: WriteProgram) -> None:
    for name in ("dpkg-deb", "mke2fs", "debugfs"):
        write_program(name, "#!/bin/sh\nexit 1\n")


def test_image_that_was_not_built_is_an_error_with_the_command(lab_folder: Path) -> None:
    assert find_image(lab_recipe({})) is None
    with pytest.raises(RequirementMissing, match="`edgeship lab build` makes it once") as caught:
        open_image(lab_recipe({}))
    assert caught.value.problems[0].where == str(lab_folder)


def test_build_that_fails_leaves_nothing(lab_folder: Path, write_program: WriteProgram) -> None:
    write_program("apt-get", "#!/bin/sh\necho 'no such mirror' >&2\nexit 100\n")
    with pytest.raises(RequirementMissing, match=r"apt-get update failed.*no such mirror"):
        build_image(lab_recipe({}))
    assert [path.name for path in (lab_folder / "images").iterdir()] == ["lock"]


def test_killed_build_is_not_taken_for_an_image_and_the_next_one_clears_it(
    lab_folder: Path, write_program: WriteProgram, tmp_path: Path
) -> None:
    pipe = tmp_path / "begun"
    subprocess.run(["mkfifo", str(pipe)], check=True)
    # ends with the pipe's reader, which is this test
    write_program("apt-get", f"#!/bin/sh\nexec >{pipe}\nwhile echo waiting; do :; done\n")
    with subprocess.Popen([sys.executable, "-c", BUILD]) as building, pipe.open() as begun:
        begun.readline()
        building.kill()
    assert find_image(lab_recipe({})) is None
    assert len(list((lab_folder / "images").glob(".new-*"))) == 1

    write_program("apt-get", "#!/bin/sh\nexit 100\n")
    with pytest.raises(RequirementMissing):
        build_image(lab_recipe({}))
    assert list((lab_folder / "images").glob(".new-*")) == []


def test_folder_without_facts_is_no_image(lab_folder: Path) -> None:
    folder = lab_folder / "images" / lab_recipe({}).key()
    folder.mkdir(parents=True)
    (folder / "disk.ext4").write_bytes(b"x")
    assert find_image(lab_recipe({})) is None
