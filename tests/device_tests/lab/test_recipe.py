from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeship.device_tests.lab.board import lab_boards
from edgeship.device_tests.lab.recipe import EXTRAS_VARIABLE, IMAGE_ID, Recipe, lab_recipe
from edgeship.errors import ConfigurationError
from edgeship.targets import load_target
from edgeship.vocabulary import Format

CHANGES: dict[str, Callable[[Recipe], Recipe]] = {
    "suite": lambda recipe: replace(recipe, suite="trixie"),
    "packages": lambda recipe: replace(recipe, packages=(*recipe.packages, "adbd")),
    "wheels": lambda recipe: replace(recipe, wheels=recipe.wheels[:-1]),
    "python": lambda recipe: replace(recipe, python="3.13"),
    "size": lambda recipe: replace(recipe, size_mib=recipe.size_mib + 1),
    "files": lambda recipe: replace(recipe, files={**recipe.files, "etc/hosts": ""}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_key_changes_with_each_part(name: str) -> None:
    recipe = lab_recipe({})
    assert CHANGES[name](recipe).key() != recipe.key()


def test_key_is_the_same_for_an_equal_recipe() -> None:
    assert lab_recipe({}).key() == lab_recipe({}).key()


def test_key_follows_what_is_in_extra_folders(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    program = folder / "server"
    keys = [lab_recipe({}).key(), lab_recipe({"llama": folder}).key()]
    program.write_bytes(b"1")
    keys.append(lab_recipe({"llama": folder}).key())
    program.write_bytes(b"2")
    keys.append(lab_recipe({"llama": folder}).key())
    program.chmod(0o755)
    keys.append(lab_recipe({"llama": folder}).key())
    keys.append(lab_recipe({"other": folder}).key())
    assert len(set(keys)) == len(keys)


def test_key_does_not_depend_on_where_an_extra_folder_is(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "file").write_bytes(b"x")
    one, two = (lab_recipe({"x": tmp_path / place}).key() for place in ("one", "two"))
    assert one == two


def test_extras_come_from_the_environment_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXTRAS_VARIABLE, f"llama={tmp_path}")
    assert lab_recipe().extras == {"llama": tmp_path}
    assert lab_recipe({}).extras == {}


@pytest.mark.parametrize("value", ["llama", "llama=", "llama=/no/such/folder", "../x=/tmp"])
def test_extras_that_name_no_folder_are_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXTRAS_VARIABLE, value)
    with pytest.raises(ConfigurationError, match="names no folder"):
        lab_recipe()


def test_every_emulated_board_takes_the_runtimes_of_the_one_image() -> None:
    recipe = lab_recipe({})
    for name in lab_boards():
        target = load_target(name, os=IMAGE_ID)
        assert target.os.python == recipe.python
        for kind in (Format.TFLITE, Format.ONNX):
            for fact in target.formats[kind].runtimes:
                assert any(wheel.endswith(f"=={fact.version}") for wheel in recipe.wheels), name
