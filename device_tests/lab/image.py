"""Image: the kernel, the first file system, the disk and the keys that all emulated boards share.

Kept in a cache under the key of its recipe. It is built beside its place and moved there whole, so
that a killed build leaves nothing that is taken for an image.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.debian import unpack_packages
from edgeship.device_tests.lab.disk import make_disk
from edgeship.device_tests.lab.initrd import initrd_from_root
from edgeship.device_tests.lab.keys import KeyPair, new_key_pair
from edgeship.device_tests.lab.recipe import Recipe
from edgeship.device_tests.lab.root import RUNTIMES_FOLDER, configure_root, prepare_root
from edgeship.device_tests.lab.tools import BUILDING, find_tools
from edgeship.device_tests.lab.wheels import compile_ahead, install_wheels, installed_wheels
from edgeship.errors import Problem, RequirementMissing
from edgeship.exchange import install_directory, new_directory, project_lock, recover_directories
from edgeship.story import Silence, Story

LAB_VARIABLE: Final = "EDGESHIP_LAB"
"""Environment variable: the folder of images and of boards that are up."""
_FACTS: Final = "image.json"


@dataclass(frozen=True, kw_only=True)
class LabImage:
    """An image in the cache.

    Attributes:
        folder: Where its files are; nothing writes there any more.
        key: Of its recipe.
        packages: `name=version` of Debian's.
        wheels: `name==version` of what `/opt/rt` has.
        build_s: How long it took to build.
    """

    folder: Path
    key: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...]
    build_s: float

    @property
    def kernel(self) -> Path:
        """The kernel, compressed as EFI stub; QEMU takes it."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """See `initrd.py`."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """A raw ext4 file system, sparse."""
        return self.folder / "disk.ext4"

    @property
    def client_key(self) -> Path:
        """Private key that root and the plain user of the boards accept."""
        return self.folder / "client_key"

    @property
    def host_key(self) -> str:
        """Public key of the boards: `ssh-ed25519 AAAA...`."""
        return (self.folder / "host_key.pub").read_text().strip()

    @property
    def disk_bytes(self) -> int:
        """What all of it takes on this disk, holes not counted (stat(2): units of 512 bytes)."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())


def lab_folder() -> Path:
    """The cache: what the variable names, else `edgeship/lab` in the user's cache folder."""
    if named := os.environ.get(LAB_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeship/lab"


def find_image(recipe: Recipe) -> LabImage | None:
    """The image of this recipe, None where it has not been built."""
    return read_image(lab_folder() / "images" / recipe.key())


def read_image(folder: Path) -> LabImage | None:
    """The image in a folder of the cache, None where none is."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
    except (OSError, ValueError):
        return None
    return LabImage(
        folder=folder,
        key=folder.name,
        packages=tuple(facts["packages"]),
        wheels=tuple(facts["wheels"]),
        build_s=facts["build_s"],
    )


def open_image(recipe: Recipe) -> LabImage:
    """The image of this recipe.

    Raises:
        RequirementMissing: It has not been built.
    """
    image = find_image(recipe)
    if image is None:
        problem = Problem(
            where=str(lab_folder()),
            what="the image of the emulated boards has not been built",
            remedy="`edgeship lab build` makes it once, from Debian's and Python's packages",
        )
        raise RequirementMissing(problem)
    return image


def build_image(recipe: Recipe, story: Story | None = None) -> LabImage:
    """The image of this recipe, built unless it is there; waits for another build of it.

    Raises:
        RequirementMissing: A tool, a package or room on the disk is absent.
    """
    story = story or Silence()
    images = lab_folder() / "images"
    with project_lock(
        images / "lock", on_wait=lambda pid: story.say(f"waiting for process {pid}, which builds")
    ):
        if (image := find_image(recipe)) is not None:
            return image
        tools = find_tools(BUILDING)
        recover_directories(images)
        with new_directory(images) as work:
            image_folder = work / "image"
            image_folder.mkdir(mode=0o700)
            _build(recipe, image_folder, scratch=work, tools=tools, story=story)
            install_directory(image_folder, images / recipe.key())
    return open_image(recipe)


def _build(
    recipe: Recipe, folder: Path, *, scratch: Path, tools: dict[str, str], story: Story
) -> None:
    """Fill `folder` with all files of an image, the facts last."""
    start = time.monotonic()
    root, keys = scratch / "root", new_key_pair()
    prepare_root(root)
    with story.stage("lab", f"Debian {recipe.suite} for arm64: {len(recipe.packages)} packages"):
        packages = unpack_packages(
            recipe.packages,
            suite=recipe.suite,
            root=root,
            scratch=_made(scratch / "apt"),
            tools=tools,
        )
    with story.stage("lab", f"runtimes for aarch64: {', '.join(recipe.wheels)}"):
        runtimes = root / RUNTIMES_FOLDER
        install_wheels(recipe.wheels, python=recipe.python, destination=runtimes)
    with story.stage("lab", "configuration"):
        configure_root(
            root,
            files=recipe.files,
            extras=recipe.extras,
            python=recipe.python,
            authorized_key=keys.client_public,
            host_key=keys.host_private,
        )
        library = f"usr/lib/python{recipe.python}"
        if not compile_ahead(root, (library, "opt"), python=recipe.python):
            story.say(f"this Python is not {recipe.python}: programs on the boards start slower")
    with story.stage("lab", f"disk of {recipe.size_mib} MiB"):
        _move_kernel(root, folder)
        make_disk(
            root,
            folder / "disk.ext4",
            size_mib=recipe.size_mib,
            tools=tools,
            scratch=scratch,
        )
    _write_keys(folder, keys)
    facts = {
        "packages": packages,
        "wheels": installed_wheels(runtimes),
        "build_s": round(time.monotonic() - start, 1),
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=1))


def _move_kernel(root: Path, folder: Path) -> None:
    """QEMU loads the kernel from outside, so that the disk has no /boot."""
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    kernel.rename(folder / "vmlinuz")
    shutil.rmtree(root / "boot")
    (folder / "initrd").write_bytes(initrd_from_root(root))


def _write_keys(folder: Path, keys: KeyPair) -> None:
    client = folder / "client_key"
    client.touch(mode=0o600)
    client.write_bytes(keys.client_private)
    (folder / "host_key.pub").write_text(keys.host_public)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
