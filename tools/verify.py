"""Verify: whether a bundle is whole and is what it says; reads the archive, unpacks nothing."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from edgeship.artifact import MANIFEST_NAME
from edgeship.digests import json_sha256
from edgeship.errors import IntegrityRefused, Problem
from edgeship.tools.bundle import layout

_BLOCK_BYTES: Final = 1 << 20
_LARGEST_TEXT: Final = 16 << 20
"""Of a file that is read whole: a manifest with much evidence has 100 kB."""
_REMEDY: Final = "do not install it; fetch it again, or bundle it anew"
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """What one pass over the archive found: digests of all files, and the texts among them."""

    digests: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


def verify(path: Path) -> list[Problem]:
    """Everything that is wrong with the bundle at `path`; empty where it is whole.

    Digests guard against damage, not against someone who makes another bundle: compare the
    archive's own digest with what `edgeship bundle` printed.

    Raises:
        IntegrityRefused: It is no tar at all, or ends in the middle.
    """
    problems: list[Problem] = []
    contents = _Contents()
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                problems += _take(archive, member, contents, path)
            if not _is_padding(file, archive.offset):
                problems.append(_problem(path, "", "there are bytes behind its end"))
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        problem = Problem(
            where=str(path),
            what="this is no tar that can be read to its end",
            found=str(error),
            remedy=_REMEDY,
        )
        raise IntegrityRefused(problem) from error
    if len({name.partition("/")[0] for name in contents.digests}) > 1:
        problems.append(_problem(path, "", "there is more than one directory at its top"))
    below = {name.partition("/")[2]: name for name in contents.digests}
    return [*problems, *_sum_problems(path, below, contents), *_text_problems(path, contents)]


def _is_padding(file: BinaryIO, start: int) -> bool:
    """Whether all bytes from `start` on are zero: what tars are filled up with."""
    file.seek(start)
    while block := file.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            return False
    return True


def _take(
    archive: tarfile.TarFile, member: tarfile.TarInfo, contents: _Contents, path: Path
) -> Iterator[Problem]:
    """Digest one member, if it is a file of a name that stays inside."""
    fault = layout.name_fault(member.name)
    if fault is None and "/" not in member.name and not member.isdir():
        fault = "it lies beside the bundle's directory"
    if fault is not None:
        yield _problem(path, member.name, f"the name does not suit: {fault}")
        return
    if member.isdir():
        return
    if not member.isreg():
        yield _problem(path, member.name, "it is neither a file nor a directory")
        return
    if member.name in contents.digests:
        yield _problem(path, member.name, "it is there twice")
        return
    name = member.name.rpartition("/")[2]
    is_text = name in {layout.SUMS_NAME, layout.DESCRIPTION_NAME, MANIFEST_NAME, layout.FACTS_NAME}
    digest, text = hashlib.sha256(), []
    source = archive.extractfile(member)
    assert source is not None  # it is a regular file
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        if is_text and member.size <= _LARGEST_TEXT:
            text.append(block)
    contents.digests[member.name] = digest.hexdigest()
    if is_text:
        contents.texts[member.name.partition("/")[2]] = b"".join(text)


def _sum_problems(path: Path, below: Mapping[str, str], contents: _Contents) -> Iterator[Problem]:
    """Files against SHA256SUMS, both ways."""
    listed = {}
    for line in contents.texts.get(layout.SUMS_NAME, b"").decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    if not listed:
        yield _problem(path, layout.SUMS_NAME, "the list of digests is absent or empty")
        return
    for name, digest in listed.items():
        found = contents.digests.get(below.get(name, ""))
        if found != digest:
            yield _problem(
                path,
                name,
                "the file is not the one that was bundled",
                expected=f"sha256 {digest}",
                found=found or "no such file",
            )
    for name in sorted(below.keys() - listed.keys() - {layout.SUMS_NAME}):
        yield _problem(path, name, "SHA256SUMS does not list it")


def _text_problems(path: Path, contents: _Contents) -> Iterator[Problem]:
    """What bundle.json, release.txt and the manifests say of each other."""
    try:
        value = json.loads(contents.texts[layout.DESCRIPTION_NAME])
        facts = layout.release_facts(contents.texts[layout.FACTS_NAME].decode())
        ids = {str(item["directory"]): str(item["artifact_id"]) for item in value["artifacts"]}
        stated = {key: str(value[key]) for key in ("name", "release", "target", "arch")}
    except _UNREADABLE as error:
        found = f"{type(error).__name__}: {error}"
        yield _problem(path, layout.DESCRIPTION_NAME, "it cannot be read", found=found)
        return
    if value.get("schema") != layout.SCHEMA:
        yield _problem(path, layout.DESCRIPTION_NAME, "it is of another schema")
    for key, text in stated.items():
        if facts.get(key) != text:
            what = f"{key} is another one than in {layout.DESCRIPTION_NAME}"
            yield _problem(path, layout.FACTS_NAME, what, expected=text, found=facts.get(key))
    manifests = {
        name.rpartition("/")[0] for name in contents.texts if name.endswith(f"/{MANIFEST_NAME}")
    }
    for directory in sorted(manifests ^ ids.keys()):
        what = "an artifact is in one of the archive and bundle.json alone"
        yield _problem(path, directory, what)
    for directory in sorted(manifests & ids.keys()):
        yield from _manifest_problems(path, directory, ids[directory], contents)


def _manifest_problems(
    path: Path, directory: str, stated_id: str, contents: _Contents
) -> Iterator[Problem]:
    """The id is that of the manifest (docs/artifact.md), and the files are the manifest's."""
    name = f"{directory}/{MANIFEST_NAME}"
    try:
        value: dict[str, Any] = json.loads(contents.texts[name])
        own = json_sha256(
            {key: item for key, item in value.items() if key not in {"artifact_id", "evidence"}}
        )
        files = {f"{directory}/{file['name']}": file["sha256"] for file in value["files"]}
        written = value["artifact_id"]
    except _UNREADABLE as error:
        yield _problem(path, name, "it cannot be read", found=f"{type(error).__name__}: {error}")
        return
    if not own == written == stated_id:
        found = f"{written} in it, {stated_id} in {layout.DESCRIPTION_NAME}"
        what = "the manifest was changed after it was sealed"
        yield _problem(path, name, what, expected=own, found=found)
    present = {key.partition("/")[2]: digest for key, digest in contents.digests.items()}
    inside = {key: digest for key, digest in present.items() if key.startswith(f"{directory}/")}
    del inside[name]
    for file in sorted(files.keys() | inside.keys()):
        if files.get(file) != inside.get(file):
            what = "the file is not the one that its manifest describes"
            expected, found_digest = files.get(file), inside.get(file)
            yield _problem(
                path,
                file,
                what,
                expected=f"sha256 {expected}" if expected else "no such file",
                found=found_digest or "no such file",
            )


def _problem(
    path: Path, name: str, what: str, *, expected: str | None = None, found: str | None = None
) -> Problem:
    where = f"{path}: {name}" if name else str(path)
    return Problem(where=where, what=what, expected=expected, found=found, remedy=_REMEDY)
