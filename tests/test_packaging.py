"""The package map, its symlinks, and what ships."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.checkout

ROOT: Final = Path(__file__).parents[1]
SETUPTOOLS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
MAPPED: Final = {
    name.removeprefix("edgeship."): ROOT / path
    for name, path in SETUPTOOLS["package-dir"].items()
    if name != "edgeship"
}


def test_every_package_below_the_roots_is_listed() -> None:
    found = {"edgeship"}
    for name, root in {"": ROOT / "src/edgeship", **MAPPED}.items():
        for init in root.rglob("__init__.py"):
            parts = init.parent.relative_to(root).parts
            found.add(".".join(part for part in ("edgeship", name, *parts) if part))
    assert found == set(SETUPTOOLS["packages"])


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_each_link_resolves_to_its_mapped_directory(name: str) -> None:
    link = ROOT / "src/edgeship" / name
    assert link.is_symlink()
    assert link.resolve() == MAPPED[name].resolve()
