"""Loader: a target by its name, from the catalogue or from a file of the project."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from edgeship.errors import UnknownName
from edgeship.targets.row import Row, read_row
from edgeship.targets.target import Target

_CATALOGUE: Final = files("edgeship.targets") / "catalogue"
_SUFFIX: Final = ".toml"


def target_names() -> tuple[str, ...]:
    """Names of the built-in targets, sorted."""
    names = (entry.name for entry in _CATALOGUE.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def load_target(name: str, *, os: str | None = None, file: Path | None = None) -> Target:
    """The target `name` under one of its OS images.

    Args:
        name: Name of a built-in row, or what the key "name" of `file` says.
        os: Id of the OS image; None for the row's default.
        file: A row of the project's own, which is read instead of the catalogue.

    Raises:
        UnknownName: No such target, or no such OS image.
        ConfigurationError: With every problem of the row.
    """
    row = read_row(file, name=name) if file is not None else _built_in_row(name)
    if os is not None and os not in row.images:
        where = f"targets.{name}.os"
        raise UnknownName(kind="OS image", name=os, choices=row.images, where=where)
    return row.target(row.default_os if os is None else os)


def _built_in_row(name: str) -> Row:
    names = target_names()
    if name not in names:
        raise UnknownName(kind="target", name=name, choices=names, where=f"targets.{name}")
    with as_file(_CATALOGUE / f"{name}{_SUFFIX}") as file:
        return read_row(file, name=name)
