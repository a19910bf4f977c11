"""Seal: a stage's files become an Artifact in `build/`, exchanged as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from edgeship.artifact import (
    MANIFEST_NAME,
    Artifact,
    ArtifactFile,
    Manifest,
    describe_file,
    read_artifact,
    write_manifest,
)
from edgeship.errors import ConfigurationError, IntegrityRefused, Problem
from edgeship.exchange import install_directory, new_directory
from edgeship.exporters.protocol import Payload
from edgeship.vocabulary import Role


def gather_files(
    emitted: Path, payload: Payload, golden: Path, golden_names: list[str]
) -> dict[Path, ArtifactFile]:
    """The model and its golden pack, described, by where they are now."""
    files = {
        emitted / name: describe_file(emitted, name, role) for name, role in payload.files.items()
    }
    for name in golden_names:
        files[golden / name] = describe_file(golden, name, Role.GOLDEN)
    return files


def gather_companions(paths: Mapping[Role, Path | None]) -> dict[Path, ArtifactFile]:
    """Files of the project that go along, where there are any: labels, tokenizer."""
    return {
        path: describe_file(path.parent, path.name, role)
        for role, path in paths.items()
        if path is not None
    }


def seal(files: dict[Path, ArtifactFile], manifest: Manifest, destination: Path) -> bool:
    """Install the artifact, unless the one that is there has the same id and is whole.

    Evidence of an artifact with the same id is kept, that of another one goes with it.

    Returns:
        Whether anything was written.

    Raises:
        ConfigurationError: Something that edgeship did not make is in the way.
    """
    _require_ours(destination)
    old = _installed(destination)
    if old is not None and old.manifest.artifact_id == manifest.artifact_id:
        if not old.damaged_files():
            return False
        manifest = old.manifest
    with new_directory(destination.parent) as directory:
        for source, file in files.items():
            path = directory / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)  # with its mode: programs are run
        write_manifest(directory, manifest)
        install_directory(directory, destination)
    return True


def _require_ours(destination: Path) -> None:
    """An artifact's directory holds a manifest; anything else there is somebody's own."""
    if not destination.exists() or (destination / MANIFEST_NAME).is_file():
        return
    if destination.is_dir() and not any(destination.iterdir()):
        return
    problem = Problem(
        where=str(destination),
        what="something that edgeship did not make is in the way",
        expected=f"nothing, or an artifact with a {MANIFEST_NAME}",
        remedy="move it away",
    )
    raise ConfigurationError(problem)


def _installed(directory: Path) -> Artifact | None:
    """The artifact that is there, if it can be read."""
    if not (directory / MANIFEST_NAME).is_file():
        return None
    try:
        return read_artifact(directory)
    except IntegrityRefused:
        return None
