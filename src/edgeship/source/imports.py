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
        self._roots = (directory, directory.resolve())
        self._before = dict(sys.modules)

    def files(self) -> list[Path]:
        """Their files, sorted; installed packages below the directory (a venv) are left out."""
        return sorted({path for _, path in self._modules() if path.suffix == ".py"})

    def forget(self) -> None:
        """Take them out of `sys.modules`, so that another project's `model.py` is its own."""
        for name, _ in self._modules():
            if name in self._before:
                sys.modules[name] = self._before[name]
            else:
                del sys.modules[name]

    def _modules(self) -> list[tuple[str, Path]]:
        found = []
        for name, module in list(sys.modules.items()):
            if self._before.get(name) is module:
                continue
            path = self._path_below(_place(module))
            if path is not None and "site-packages" not in path.parts:
                found.append((name, path))
        return found

    def _path_below(self, place: str | None) -> Path | None:
        """Where it lies below the resolved directory; links inside of it are not followed."""
        if place is None or not Path(place).is_absolute():
            return None  # torch.ops and the like name files that are nowhere
        below = self._roots[-1]
        for root in self._roots:
            if Path(place).is_relative_to(root):
                return below / Path(place).relative_to(root)
        path = Path(place).resolve()
        return path if path.is_relative_to(below) else None


@contextmanager
def project_imports(directory: Path) -> Iterator[ProjectImports]:
    """Let files in `directory` import one another; leaves neither modules nor bytecode behind."""
    imports = ProjectImports(directory)
    writes_bytecode, path = sys.dont_write_bytecode, list(sys.path)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(directory))
    try:
        yield imports
    finally:
        sys.path[:] = path  # also without what the project's own code put there
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
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends itself is no factory
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
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


def _place(module: object) -> str | None:
    """A module's file, or the directory of a package without one."""
    names = getattr(module, "__dict__", {})
    file = names.get("__file__")
    if isinstance(file, str):
        return file
    return next(iter(names.get("__path__") or ()), None)


def _failed(factory: Factory, what: str, error: BaseException) -> ConfigurationError:
    problem = Problem(
        where=f"{factory.file.name}:{factory.attribute}",
        what=what,
        found=f"{type(error).__name__}: {error}",
        remedy=f"make `python {factory.file.name}` run",
    )
    return ConfigurationError(problem)
