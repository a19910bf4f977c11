"""Artifact: the files of one (target, format, precision) and the manifest that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edgeship.contract import Contract
from edgeship.digests import file_sha256, json_sha256
from edgeship.errors import IntegrityRefused, Problem
from edgeship.evidence import Evidence
from edgeship.exchange import write_file
from edgeship.vocabulary import Format, Role

SCHEMA: Final = 1
MANIFEST_NAME: Final = "manifest.json"
_NOT_IN_ID: Final = frozenset({"artifact_id", "evidence"})
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RecursionError,
)
"""What reading a file of unknown origin as a manifest may raise."""


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """One file of an artifact; `name` is relative to its directory, with forward slashes."""

    name: str
    role: Role
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "name": self.name,
            "role": str(self.role),
            "bytes": self.bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, kw_only=True)
class RuntimeNeed:
    """A runtime that can run the artifact, from version `min` on."""

    runtime: str
    min: str


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a board must have.

    Attributes:
        any_of: One of these runtimes.
        isa: CPU features beyond the target's base architecture.
        memory_bytes: Forecast of what the runtime allocates for the model and its tensors.
    """

    any_of: tuple[RuntimeNeed, ...]
    isa: tuple[str, ...] = ()
    memory_bytes: int | None = None

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "any_of": [{"runtime": need.runtime, "min": need.min} for need in self.any_of],
            "isa": list(self.isa),
            "memory_bytes": self.memory_bytes,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Requirements:
        """Inverse of `to_json`."""
        return cls(
            any_of=tuple(
                RuntimeNeed(runtime=need["runtime"], min=need["min"]) for need in value["any_of"]
            ),
            isa=tuple(value["isa"]),
            memory_bytes=value["memory_bytes"],
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `manifest.json` (schema 1); docs/manifest.md describes each key."""

    edgeship: str
    target: str
    format: Format
    precision: str
    files: tuple[ArtifactFile, ...]
    source: Mapping[str, object]
    tools: Mapping[str, str]
    contract: Contract
    requires: Requirements
    notes: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = field(default=())

    @property
    def artifact_id(self) -> str:
        """SHA-256 of the canonical JSON of everything but the evidence and the id itself."""
        return _artifact_id(self._facts())

    @property
    def size_bytes(self) -> int:
        """Sum over the files of role `model`."""
        return sum(file.bytes for file in self.files if file.role is Role.MODEL)

    def to_json(self) -> dict[str, object]:
        """The whole manifest."""
        evidence = [item.to_json() for item in self.evidence]
        return self._facts() | {"artifact_id": self.artifact_id, "evidence": evidence}

    def _facts(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "edgeship": self.edgeship,
            "target": self.target,
            "format": str(self.format),
            "precision": self.precision,
            "files": [file.to_json() for file in self.files],
            "source": dict(self.source),
            "tools": dict(self.tools),
            "contract": self.contract.to_json(),
            "requires": self.requires.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A manifest and the directory that it describes."""

    directory: Path
    manifest: Manifest

    def damaged_files(self) -> list[Problem]:
        """Every file that is absent or whose bytes are not those of the manifest."""
        problems = []
        for file in self.manifest.files:
            path = self.directory / file.name
            found = file_sha256(path) if path.is_file() else "no such file"
            if found != file.sha256:
                problems.append(
                    Problem(
                        where=str(path),
                        what="the file is not the one that was built",
                        expected=f"sha256 {file.sha256}",
                        found=found,
                        remedy="run `edgeship build` again",
                    )
                )
        return problems

    def with_evidence(self, evidence: tuple[Evidence, ...]) -> Artifact:
        """The same artifact with `evidence` in place of its own; written atomically."""
        artifact = replace(self, manifest=replace(self.manifest, evidence=evidence))
        write_manifest(self.directory, artifact.manifest)
        return artifact


def describe_file(directory: Path, name: str, role: Role) -> ArtifactFile:
    """Size and digest of `directory/name`."""
    path = directory / name
    return ArtifactFile(name=name, role=role, bytes=path.stat().st_size, sha256=file_sha256(path))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically, indented for people."""
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_file(directory / MANIFEST_NAME, text.encode() + b"\n")


def read_artifact(directory: Path) -> Artifact:
    """Read the manifest in `directory`; the files that it lists are not read.

    Raises:
        IntegrityRefused: No manifest of schema 1, or one whose artifact_id is not its own.
    """
    path = directory / MANIFEST_NAME
    try:
        value = json.loads(path.read_bytes())
        manifest = _manifest_from_json(value)
        found = value["artifact_id"]
        expected = _artifact_id(value)
    except _UNREADABLE as error:
        problem = Problem(
            where=str(path),
            what="this is no manifest that can be read",
            expected=f"JSON of schema {SCHEMA}",
            found=f"{type(error).__name__}: {error}",
            remedy="run `edgeship build` again",
        )
        raise IntegrityRefused(problem) from error
    if found != expected:
        problem = Problem(
            where=f"{path}: artifact_id",
            what="the manifest was changed after it was sealed",
            expected=expected,
            found=str(found),
            remedy="run `edgeship build` again",
        )
        raise IntegrityRefused(problem)
    return Artifact(directory=directory, manifest=manifest)


def _artifact_id(value: Mapping[str, object]) -> str:
    """Of a manifest as JSON: every key counts, also one that this version does not know."""
    return json_sha256({key: item for key, item in value.items() if key not in _NOT_IN_ID})


def _manifest_from_json(value: Mapping[str, Any]) -> Manifest:
    if value["schema"] != SCHEMA:
        message = f"schema {value['schema']!r}"
        raise ValueError(message)
    return Manifest(
        edgeship=value["edgeship"],
        target=value["target"],
        format=Format(value["format"]),
        precision=value["precision"],
        files=tuple(_file_from_json(file) for file in value["files"]),
        source=value["source"],
        tools=value["tools"],
        contract=Contract.from_json(value["contract"]),
        requires=Requirements.from_json(value["requires"]),
        notes=tuple(value["notes"]),
        evidence=tuple(Evidence.from_json(item) for item in value["evidence"]),
    )


def _file_from_json(value: Mapping[str, Any]) -> ArtifactFile:
    """A manifest may come from elsewhere: no name in it leads out of the artifact's directory."""
    path = PurePosixPath(value["name"])
    if path.is_absolute() or ".." in path.parts or not path.parts:
        message = f"file name {value['name']!r}"
        raise ValueError(message)
    return ArtifactFile(
        name=value["name"],
        role=Role(value["role"]),
        bytes=value["bytes"],
        sha256=value["sha256"],
    )
