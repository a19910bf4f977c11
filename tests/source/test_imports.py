import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeship.errors import ConfigurationError
from edgeship.project import Factory
from edgeship.source.imports import load_factory, project_imports


@pytest.fixture(autouse=True)
def process_is_left_alone() -> Iterator[None]:
    before = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    yield
    names = {name for name, module in sys.modules.items() if before[0].get(name) is not module}
    assert not {name for name in names if not name.startswith(("torch", "encodings"))}
    assert (sys.path, sys.dont_write_bytecode) == before[1:]


def write(directory: Path, **files: str) -> Path:
    """Files by stem; `__` in a name is a directory."""
    for name, text in files.items():
        file = directory / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def call(directory: Path, file: str = "model.py", attribute: str = "build") -> object:
    return load_factory(Factory(file=directory / file, attribute=attribute))()


def test_a_factory_may_import_its_siblings_and_they_are_listed(tmp_path: Path) -> None:
    write(
        tmp_path,
        model="import parts\nfrom nets.deep import depth\ndef build(): return parts.X + depth",
        parts="X = 40",
        nets__deep="depth = 2",
        unused="",
    )
    with project_imports(tmp_path) as imports:
        assert call(tmp_path) == 42
        files = imports.files()
    assert files == [tmp_path / name for name in ("model.py", "nets/deep.py", "parts.py")]


def test_files_imported_while_the_factory_runs_are_listed_too(tmp_path: Path) -> None:
    write(tmp_path, model="def build():\n  import parts\n  return parts.X", parts="X = 1")
    with project_imports(tmp_path) as imports:
        assert call(tmp_path) == 1
        assert imports.files() == [tmp_path / "model.py", tmp_path / "parts.py"]


def test_installed_packages_below_the_project_are_not_its_files(tmp_path: Path) -> None:
    packages = tmp_path / ".venv/lib/python3.11/site-packages"
    write(packages, installed_thing="X = 3")
    write(
        tmp_path,
        model=f"import sys; sys.path.append({str(packages)!r})\n"
        "import installed_thing\ndef build(): return installed_thing.X",
    )
    with project_imports(tmp_path) as imports:
        assert call(tmp_path) == 3
        assert imports.files() == [tmp_path / "model.py"]
    del sys.modules["installed_thing"]


def test_modules_with_odd_files_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.ops.__file__ == "_ops.py"  # relative, and nowhere
    write(tmp_path, model="def build(): return 0", _ops="")
    monkeypatch.chdir(tmp_path)
    with project_imports(tmp_path) as imports:
        for name, odd in (("odd_ops", torch.ops), ("odd_none", None), ("odd_int", 3)):
            monkeypatch.setitem(sys.modules, name, odd)
        assert call(tmp_path) == 0
        assert imports.files() == [tmp_path / "model.py"]
    monkeypatch.undo()


def test_two_projects_with_the_same_names_do_not_mix(tmp_path: Path) -> None:
    for index in range(2):
        directory = write(
            tmp_path / str(index),
            model="import parts\nfrom nets import deep\ndef build(): return parts.X, deep.X",
            parts=f"X = {index}",
            nets__deep=f"X = {index}",
        )
        with project_imports(directory) as imports:
            assert call(directory) == (index, index)
            assert len(imports.files()) == 3
        assert not {"model", "parts", "nets", "nets.deep"} & set(sys.modules)


def test_a_factory_file_may_have_the_name_of_a_loaded_module(tmp_path: Path) -> None:
    import json

    write(tmp_path, json="def build(): return 'mine'", broken="1 / 0")
    with project_imports(tmp_path) as imports:
        assert call(tmp_path, "json.py") == "mine"
        assert imports.files() == [tmp_path / "json.py"]
    assert sys.modules["json"] is json


def test_a_broken_file_with_the_name_of_a_loaded_module_leaves_that_one(tmp_path: Path) -> None:
    import json

    write(tmp_path, json="1 / 0")
    with project_imports(tmp_path), pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        call(tmp_path, "json.py")
    assert sys.modules["json"] is json


def test_a_linked_project_and_linked_files_in_it_are_the_projects(tmp_path: Path) -> None:
    real = write(tmp_path / "real", model="import parts\ndef build(): return parts.X")
    write(tmp_path / "elsewhere", parts="X = 5")
    (real / "parts.py").symlink_to(tmp_path / "elsewhere/parts.py")
    (tmp_path / "link").symlink_to(real)
    with project_imports(tmp_path / "link") as imports:
        assert call(tmp_path / "link") == 5
        assert imports.files() == [real / "model.py", real / "parts.py"]


def test_what_the_projects_code_puts_on_the_path_goes_with_it(tmp_path: Path) -> None:
    write(tmp_path, model="import sys\nsys.path.insert(0, '/nowhere')\ndef build(): return 0")
    with project_imports(tmp_path):
        call(tmp_path)
    assert "/nowhere" not in sys.path


def test_code_that_takes_itself_off_the_path_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, model="import sys\nsys.path.pop(0)\ndef build(): return 0")
    with project_imports(tmp_path):
        assert call(tmp_path) == 0


def test_no_bytecode_is_left_in_the_project(tmp_path: Path) -> None:
    write(tmp_path, model="import parts\ndef build(): return 0", parts="")
    with project_imports(tmp_path):
        call(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.py", "parts.py"]


def test_the_process_is_restored_after_an_error(tmp_path: Path) -> None:
    write(tmp_path, model="import parts\nraise OSError('no such disk')", parts="")
    with pytest.raises(ConfigurationError), project_imports(tmp_path):
        call(tmp_path)
    assert not {"model", "parts"} & set(sys.modules)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise OSError('no such disk')", "OSError: no such disk"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def build(:", "SyntaxError"),
        ("import sys; sys.exit('usage: model.py')", "SystemExit: usage: model.py"),
    ],
)
def test_a_file_that_fails_is_named_with_its_reason(tmp_path: Path, text: str, found: str) -> None:
    write(tmp_path, model=text)
    with project_imports(tmp_path), pytest.raises(ConfigurationError) as caught:
        call(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == "model.py:build"
    assert found in str(problem.found)
    assert "model.py" in problem.remedy


@pytest.mark.parametrize("text", ["def biuld(): pass", "build = 3", ""])
def test_a_missing_function_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path, model=text)
    with (
        project_imports(tmp_path),
        pytest.raises(ConfigurationError, match=r"model\.py:build: the file has no such function"),
    ):
        call(tmp_path)
