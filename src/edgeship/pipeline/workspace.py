"""Workspace: a project's `.edgeship/` and `build/`, and the digests of what it consists of."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from edgeship.digests import DigestMemory, canonical_json, json_sha256
from edgeship.exchange import recover_directories, write_file
from edgeship.pipeline.cache import StageCache
from edgeship.project import Factory, FactorySource, Project
from edgeship.source.checkpoint import stored_files
from edgeship.source.onnx_data import external_files

_STATE: Final = ".edgeship"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a project's results are."""

    project: Project
    cache: StageCache
    digests: DigestMemory

    @property
    def lock_file(self) -> Path:
        """The lock of everything that writes here."""
        return self.project.directory / _STATE / "lock"

    def artifact_directory(self, target: str, format_: str, precision: str) -> Path:
        """`build/<target>/<format>-<precision>`."""
        return self.project.directory / "build" / target / f"{format_}-{precision}"

    def recover(self) -> None:
        """Undo what a killed command left behind; call with the lock held."""
        self.cache.recover()
        build = self.project.directory / "build"
        for target in build.iterdir() if build.is_dir() else ():
            recover_directories(target)
            for artifact in target.iterdir() if target.is_dir() else ():
                recover_directories(artifact)  # a manifest that was being rewritten

    def known_imports(self) -> dict[str, str] | None:
        """Digests of the project's files that the factory imported, if none has changed since.

        None means that the factory must be imported to learn them.
        """
        if not isinstance(self.project.model.source, FactorySource):
            return {}
        path = self._imports_file
        try:
            files: dict[str, str] = json.loads(path.read_bytes())[self.factory_name]
            current = {name: self.digests.sha256(self.project.directory / name) for name in files}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return files if files == current else None

    @property
    def is_code_changed(self) -> bool:
        """Whether a file that the factory imported at the last build has changed since."""
        return self._imports_file.is_file() and self.known_imports() is None

    def remember_imports(self, files: list[Path]) -> dict[str, str]:
        """Record what the factory imported; returns the digests by name."""
        root = self.project.directory.resolve()
        own = [self._factory.file.resolve()]
        digests = {
            Path(os.path.relpath(file, root)).as_posix(): self.digests.sha256(file)
            for file in sorted({*files, *own})
        }
        write_file(self._imports_file, canonical_json({self.factory_name: digests}))
        return digests

    @property
    def checkpoint(self) -> Path:
        """The file or directory with the weights."""
        source = self.project.model.source
        return source.weights if isinstance(source, FactorySource) else source.path

    def checkpoint_sha256(self) -> str:
        """Digest of the checkpoint's bytes; of several files, of their digests by name.

        Several are those of a directory, an index and its shards, an `.onnx` file and its data.
        """
        path = self.checkpoint
        if path.is_dir():
            base, files = path, [file for file in sorted(path.iterdir()) if file.is_file()]
        else:
            base = path.parent
            is_onnx = path.suffix == ".onnx"
            files = [path, *external_files(path)] if is_onnx else stored_files(path)
        if files == [path]:
            return self.digests.sha256(path)
        named = [[file.relative_to(base).as_posix(), self.digests.sha256(file)] for file in files]
        return json_sha256(named)

    @property
    def _imports_file(self) -> Path:
        return self.project.directory / _STATE / "imports.json"

    @property
    def factory_name(self) -> str:
        """The factory as the project file names it; "" for a file."""
        if not isinstance(self.project.model.source, FactorySource):
            return ""
        return f"{self._factory.file.name}:{self._factory.attribute}"

    @property
    def _factory(self) -> Factory:
        source = self.project.model.source
        assert isinstance(source, FactorySource)  # nothing is imported for a file
        return source.factory


def open_workspace(project: Project) -> Workspace:
    """The workspace of a project; nothing is written yet."""
    state = project.directory / _STATE
    return Workspace(
        project=project,
        cache=StageCache(state / "stages"),
        digests=DigestMemory(state / "digests.json"),
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by distribution name; "absent" for what is not installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions
