"""Stage cache: results of stages in `.edgeship/stages/<stage>/<key>/`, written whole or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.digests import json_sha256
from edgeship.exchange import install_directory, new_directory, recover_directories

_KEPT: Final = 8
"""Results kept for each stage beyond those in use: enough to go back and forth between edits."""


@dataclass(frozen=True, kw_only=True)
class StageKey:
    """Name of a stage and the digest of everything that its result depends on."""

    stage: str
    digest: str


def stage_key(stage: str, **facts: object) -> StageKey:
    """The key of a stage whose result depends on `facts`, any JSON values."""
    return StageKey(stage=stage, digest=json_sha256({"stage": stage, **facts}))


class StageCache:
    """The results of one project."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def has(self, key: StageKey) -> bool:
        """Whether there is a result; unlike `find` it does not mark it as used."""
        return self.path(key).is_dir()

    def path(self, key: StageKey) -> Path:
        """Where the result is, if there is one."""
        return self._directory / key.stage / key.digest

    def find(self, key: StageKey) -> Path | None:
        """Directory of the result, if there is one."""
        path = self.path(key)
        if not path.is_dir():
            return None
        os.utime(path)
        return path

    def run(self, key: StageKey, work: Callable[[Path], None]) -> Path:
        """Directory of the result; `work` writes it into an empty one if there is none yet."""
        found = self.find(key)
        if found is not None:
            return found
        parent = self._directory / key.stage
        with new_directory(parent) as directory:
            work(directory)
            install_directory(directory, parent / key.digest)
        return parent / key.digest

    def recover(self) -> None:
        """Remove what killed processes left half-written."""
        if self._directory.is_dir():
            for stage in self._directory.iterdir():
                recover_directories(stage)

    def prune(self, used: Iterable[StageKey]) -> None:
        """Remove results that are not in `used`, but for the latest eight of each stage."""
        in_use = {(key.stage, key.digest) for key in used}
        if not self._directory.is_dir():
            return
        for stage in self._directory.iterdir():
            idle = [path for path in stage.iterdir() if (stage.name, path.name) not in in_use]
            idle.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in idle[_KEPT:]:
                shutil.rmtree(path)
