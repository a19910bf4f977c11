"""Runs a project's own Python files and remembers which ones were imported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeship.errors import ConfigurationError, Problem
from edgeship.project import Factory


class ProjectImports:
    """The modules that lie in the project's directory and were imported since it was opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._before = set(sys.modules)

    def files(self) -> list[Path]:
        """Their files, sorted; installed packages below the directory (a venv) are left out."""
        return sorted({file for _, file in self._modules()})

    def forget(self) -> None:
        """Take them out of `sys.modules`, so that another project's `model.py` is its own."""
        for name, _ in self._modules():
            del sys.modules[name]

    def _modules(self) -> list[tuple[str, Path]]:
        found = []
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name in self._before or file is None or not Path(file).is_absolute():
                continue  # torch.ops and the like name files that are nowhere
            path = Path(file).resolve()
            is_installed = "site-packages" in path.parts
            if path.suffix == ".py" and path.is_relative_to(self._directory) and not is_installed:
                found.append((name, path))
        return found


@contextmanager
def project_imports(directory: Path) -> Iterator[ProjectImports]:
    """Let files in `directory` import one another; leaves neither modules nor bytecode behind."""
    imports = ProjectImports(directory)
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(directory))
    try:
        yield imports
    finally:
        sys.path.remove(str(directory))
        sys.dont_write_bytecode = writes_bytecode
        imports.forget()


def load_factory(factory: Factory) -> Callable[..., Any]:
    """Import the factory's file and return the callable that it names.

    Raises:
        ConfigurationError: The file fails when it runs, or has no such callable.
    """
    name = factory.file.stem
    spec = importlib.util.spec_from_file_location(name, factory.file)
    assert spec is not None  # a .py file that exists always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(factory, "the file fails when it is imported", error) from error
    function: object = getattr(module, factory.attribute, None)
    if not callable(function):
        problem = Problem(
            where=f"{factory.file.name}:{factory.attribute}",
            what="the file has no such function",
            expected=f"def {factory.attribute}(...)",
            found=", ".join(name for name in vars(module) if not name.startswith("_")),
            remedy="correct model.factory in edgeship.toml",
        )
        raise ConfigurationError(problem)
    return function


def _failed(factory: Factory, what: str, error: Exception) -> ConfigurationError:
    problem = Problem(
        where=f"{factory.file.name}:{factory.attribute}",
        what=what,
        found=f"{type(error).__name__}: {error}",
        remedy=f"make `python {factory.file.name}` run",
    )
    return ConfigurationError(problem)
