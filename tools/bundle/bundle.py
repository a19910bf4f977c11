"""Bundle: artifacts that pass become one archive that installs and tests itself on a board."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from edgeship.artifact import MANIFEST_NAME, Artifact
from edgeship.budget import worst_exit_code
from edgeship.errors import (
    ConfigurationError,
    EdgeshipError,
    ExitCode,
    IntegrityRefused,
    Problem,
    RequirementMissing,
)
from edgeship.targets import Target
from edgeship.tools.bundle import layout
from edgeship.tools.bundle.archive import Entry, write_archive
from edgeship.tools.bundle.description import (
    Description,
    Judged,
    bundle_json,
    readme_text,
    release_id,
    release_text,
)
from edgeship.vocabulary import Format, Role

_INSTALLER: Final = files("edgeship.tools.bundle") / layout.INSTALLER_NAME


class AccuracyFails(EdgeshipError):
    """An artifact that would be bundled lost more accuracy than its budget allows."""

    exit_code = ExitCode.ACCURACY


class BudgetFails(EdgeshipError):
    """An artifact that would be bundled exceeds its budget."""

    exit_code = ExitCode.BUDGET


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An archive that was written.

    Attributes:
        path: Of the archive.
        sha256: Of the archive: what to compare after it was carried somewhere.
        size_bytes: Of the archive.
        release: Identity of what it installs.
        unmeasured: What nobody measured, a line each; the same lines are in it.
    """

    path: Path
    sha256: str
    size_bytes: int
    release: str
    unmeasured: tuple[str, ...]


def bundle(
    items: Sequence[Judged],
    *,
    name: str,
    target: Target,
    destination: Path,
    board_archive: bytes,
) -> Bundle:
    """Write `NAME-TARGET-RELEASE.tar` into `destination`; the same input gives the same bytes.

    Args:
        items: Artifacts of this target with their verdicts; each of another format or precision.
        name: Of the product; its releases lie side by side under it.
        target: Whose architecture the board must have.
        destination: Directory of the archive; made if absent.
        board_archive: `edgeship-board.pyz`, which tests the artifacts on the board.

    Raises:
        AccuracyFails: As the judgements say; so do BudgetFails, and RequirementMissing where the
            budget asks for a measurement that is missing.
        ConfigurationError: Nothing to bundle, or names that do not suit.
        RequirementMissing: An artifact has no golden pack to test itself with.
        IntegrityRefused: A file is not the one that was built, or its name leads elsewhere.
    """
    _require_passing(items)
    _require_fit(items, name, target)
    installer = _INSTALLER.read_bytes()
    programs = {layout.BOARD_NAME: board_archive, layout.INSTALLER_NAME: installer}
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in programs.items()}
    ordered = sorted(items, key=lambda item: item.directory)
    release = release_id(name, target.name, ordered, digests)
    description = Description(name=name, target=target, release=release, items=ordered)

    entries = [entry for item in ordered for entry in _artifact_entries(item)]
    entries += [
        Entry.from_bytes(layout.BOARD_NAME, board_archive, is_program=True),
        Entry.from_bytes(layout.INSTALLER_NAME, installer, is_program=True),
        Entry.from_bytes(layout.DESCRIPTION_NAME, bundle_json(description)),
        Entry.from_bytes(layout.README_NAME, readme_text(description)),
    ]
    entries.append(_facts_entry(description, entries))
    entries.append(_sums_entry(entries))
    path = destination / f"{description.top}.tar"
    sha256 = write_archive(path, description.top, entries)
    return Bundle(
        path=path,
        sha256=sha256,
        size_bytes=path.stat().st_size,
        release=release,
        unmeasured=description.unmeasured,
    )


def _require_passing(items: Sequence[Judged]) -> None:
    """Refuse with the exit code that `check` would have; an unmeasured limit alone is no fault."""
    codes = [judgement.exit_code for item in items for judgement in item.judgements]
    problems = [
        Problem(
            where=str(item.artifact.directory),
            what=f"it would be bundled though {judgement.quantity} does not pass",
            found=judgement.detail,
            remedy="mend it, or bundle the others without it",
        )
        for item in items
        for judgement in item.judgements
        if judgement.exit_code is not ExitCode.OK
    ]
    code = worst_exit_code(codes)
    if code is ExitCode.OK:
        return
    if code is ExitCode.ACCURACY:
        raise AccuracyFails(*problems)
    if code is ExitCode.BUDGET:
        raise BudgetFails(*problems)
    raise RequirementMissing(*problems)


def _require_fit(items: Sequence[Judged], name: str, target: Target) -> None:
    """All problems at once, integrity before configuration before what is missing."""
    for kind, problems in (
        (IntegrityRefused, [p for item in items for p in _name_problems(item.artifact)]),
        (ConfigurationError, list(_configuration_problems(items, name, target))),
        (RequirementMissing, [p for item in items for p in _golden_problems(item.artifact)]),
    ):
        if problems:
            raise kind(*problems)


def _configuration_problems(
    items: Sequence[Judged], name: str, target: Target
) -> Iterator[Problem]:
    for kind, text in (("name", name), ("target", target.name)):
        if not layout.is_plain_name(text):
            yield Problem(
                where=f"bundle {kind}",
                what="it becomes a directory on the board",
                expected="up to 64 letters, digits, dots, dashes and underscores",
                found=repr(text),
                remedy="name it otherwise",
            )
    if not items:
        yield Problem(where="bundle", what="there is no artifact", remedy="run `edgeship build`")
    seen: set[str] = set()
    for item in items:
        where, manifest = str(item.artifact.directory), item.artifact.manifest
        if item.directory in seen or not layout.is_plain_name(manifest.precision):
            what = f"another artifact would stand at {item.directory} too"
            yield Problem(where=where, what=what, remedy="bundle one of them")
        seen.add(item.directory)
        runtimes = [need.runtime for need in manifest.requires.any_of]
        if not runtimes or not all(layout.is_plain_name(runtime) for runtime in runtimes):
            yield Problem(
                where=f"{where}: requires.any_of",
                what="it does not say which runtimes load it",
                found=repr(runtimes),
                remedy="run `edgeship build` again",
            )
        if manifest.format is Format.TENSORRT and not item.is_kit:
            yield Problem(
                where=where,
                what="it has no program that builds its engines",
                expected=f"{layout.BUILDER_NAME} in the artifact",
                remedy="run `edgeship build` again",
            )
        if manifest.target != target.name:
            yield Problem(
                where=where,
                what="it was built for another target",
                expected=target.name,
                found=manifest.target,
                remedy="bundle each target alone",
            )


def _name_problems(artifact: Artifact) -> Iterator[Problem]:
    for file in artifact.manifest.files:
        fault = layout.name_fault(file.name)
        if fault is None and file.name == MANIFEST_NAME:
            fault = "it is that of the manifest"
        if fault is not None:
            yield Problem(
                where=f"{artifact.directory / MANIFEST_NAME}: files: {file.name!r}",
                what=f"the file's name does not suit: {fault}",
                remedy="rename it, and run `edgeship build` again",
            )


def _golden_problems(artifact: Artifact) -> Iterator[Problem]:
    if not any(file.role is Role.GOLDEN for file in artifact.manifest.files):
        yield Problem(
            where=str(artifact.directory),
            what="it has no golden pack, and a board could not test it",
            remedy="run `edgeship build` again, with calibration or evaluation data",
        )


def _artifact_entries(item: Judged) -> Iterator[Entry]:
    """Its files as the manifest describes them, and the manifest as it is."""
    artifact = item.artifact
    for file in artifact.manifest.files:
        yield Entry(
            name=f"{item.directory}/{file.name}",
            source=artifact.directory / file.name,
            size_bytes=file.bytes,
            sha256=file.sha256,
        )
    content = (artifact.directory / MANIFEST_NAME).read_bytes()
    if json.loads(content)["artifact_id"] != artifact.manifest.artifact_id:
        problem = Problem(
            where=str(artifact.directory),
            what="the artifact was built anew while it was bundled",
            remedy="wait for the build, then bundle again",
        )
        raise IntegrityRefused(problem)
    yield Entry.from_bytes(f"{item.directory}/{MANIFEST_NAME}", content)


def _facts_entry(description: Description, entries: Sequence[Entry]) -> Entry:
    size_bytes = sum(entry.size_bytes for entry in entries)
    text = release_text(description, files=len(entries) + 1, size_bytes=size_bytes)
    return Entry.from_bytes(layout.FACTS_NAME, text)


def _sums_entry(entries: Sequence[Entry]) -> Entry:
    """In the form of sha256sum(1): digest, two blanks, name."""
    lines = [f"{entry.sha256}  {entry.name}\n" for entry in sorted(entries, key=lambda e: e.name)]
    return Entry.from_bytes(layout.SUMS_NAME, "".join(lines).encode())
