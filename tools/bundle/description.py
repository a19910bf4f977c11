"""Description: what a bundle says of itself, to programs, to its installer and to people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import edgeship
from edgeship.artifact import Artifact
from edgeship.budget import Judgement, worst_verdict
from edgeship.digests import json_sha256
from edgeship.evidence import Evidence
from edgeship.targets import Target
from edgeship.tools.bundle import layout
from edgeship.vocabulary import Place, Role, Verdict

_NOT_BUILT: Final = "engine not built: install.sh builds and compares it on the board"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An artifact, and what its target's budget says of it."""

    artifact: Artifact
    judgements: tuple[Judgement, ...]

    @property
    def directory(self) -> str:
        """Where it lies in a bundle."""
        manifest = self.artifact.manifest
        return layout.artifact_directory(str(manifest.format), manifest.precision)

    @property
    def is_kit(self) -> bool:
        """Whether its engines are built on the board, at installation."""
        files = self.artifact.manifest.files
        return any(file.name == layout.BUILDER_NAME and file.role is Role.PROGRAM for file in files)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """What nobody measured though there is a limit on it, or that nothing was proven at all."""
        details = [j.detail for j in self.judgements if j.verdict is Verdict.UNMEASURED]
        return tuple(details) if self.artifact.manifest.evidence else (*details, "no evidence")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a bundle is; everything that it says follows from this."""

    name: str
    target: Target
    release: str
    items: Sequence[Judged]

    @property
    def top(self) -> str:
        """The one directory of the archive, and the archive's name without its suffix."""
        return f"{self.name}-{self.target.name}-{self.release}"

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """For each artifact what was not measured, in one line each."""
        return tuple(
            f"{item.directory}: {detail}" for item in self.items for detail in item.unmeasured
        )


def release_id(name: str, target: str, items: Sequence[Judged], programs: dict[str, str]) -> str:
    """Identity of what would be installed: evidence is no part of it.

    Args:
        name: Of the bundle.
        target: Name of the target.
        items: The artifacts; an artifact_id stands for the digests of all of its files.
        programs: SHA-256 of what runs on the board, by name.
    """
    artifacts = {item.directory: item.artifact.manifest.artifact_id for item in items}
    facts = {"schema": layout.SCHEMA, "name": name, "target": target, "artifacts": artifacts}
    return json_sha256({**facts, "programs": programs})[: layout.RELEASE_LENGTH]


def bundle_json(description: Description) -> bytes:
    """`bundle.json` (schema 1); docs/bundle.md describes each key."""
    target = description.target
    value = {
        "schema": layout.SCHEMA,
        "edgeship": edgeship.__version__,
        "name": description.name,
        "release": description.release,
        "target": target.name,
        "arch": str(target.cpu.arch),
        "os": target.os.id,
        "artifacts": [_artifact_value(item) for item in description.items],
        "unmeasured": list(description.unmeasured),
    }
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def release_text(description: Description, *, files: int, size_bytes: int) -> bytes:
    """`release.txt`: what install.sh reads, a key and a value on each line.

    Args:
        description: Of the bundle.
        files: Lines of SHA256SUMS.
        size_bytes: Of all files together, but for the two lists.
    """
    manifests = [item.artifact.manifest for item in description.items]
    memory = max(manifest.requires.memory_bytes or 0 for manifest in manifests)
    lines = [
        f"name {description.name}",
        f"release {description.release}",
        f"target {description.target.name}",
        f"arch {description.target.cpu.arch}",
        f"files {files}",
        f"bytes {size_bytes}",
        f"memory_bytes {memory}",
    ]
    for item in description.items:
        if item.is_kit:  # which looks at the board's TensorRT itself
            lines.append(f"kit {item.directory}")
            continue
        needs = item.artifact.manifest.requires.any_of
        runtimes = ",".join(need.runtime for need in needs)
        lines.append(f"artifact {item.directory} {runtimes}")
    return ("\n".join(lines) + "\n").encode()


def readme_text(description: Description) -> bytes:
    """`README.txt`: the three commands, and what was proven where."""
    lines = [
        f"{description.name} for {description.target.board}, release {description.release}",
        "",
        "    sh install.sh --check      does it suit this board? changes nothing",
        "    sh install.sh --install    puts it beside the others, tests it, makes it current",
        "    sh install.sh --rollback   goes back to the release before",
        "",
        "Where the runtime is in a Python of its own, add: --python /path/to/bin/python",
        "",
        "What was proven before it was bundled:",
    ]
    for item in description.items:
        lines += [f"  {item.directory}", *(f"    {line}" for line in _proven(item))]
        if item.is_kit:
            lines.append(f"    {_NOT_BUILT}; {item.directory}/engine then leads to the one to load")
    if description.unmeasured:
        lines += ["", "NOT MEASURED:", *(f"  {line}" for line in description.unmeasured)]
    wrapped = [part for line in lines for part in _wrapped(line)]
    return ("\n".join(wrapped) + "\n").encode()


def _artifact_value(item: Judged) -> dict[str, object]:
    manifest = item.artifact.manifest
    return {
        "directory": item.directory,
        "artifact_id": manifest.artifact_id,
        "format": str(manifest.format),
        "precision": manifest.precision,
        **({"engine": _NOT_BUILT} if item.is_kit else {}),
        "size_bytes": manifest.size_bytes,
        "requires": manifest.requires.to_json(),
        "verdict": str(worst_verdict(item.judgements)),
        "judgements": [judgement.to_json() for judgement in item.judgements],
        "evidence": [_evidence_value(evidence) for evidence in manifest.evidence],
    }


def _evidence_value(evidence: Evidence) -> dict[str, object]:
    """The summary: the manifest beside it has the whole."""
    left_out = ("command", "ci95", "data_sha256", "worst_class", "speed", "rates")
    return {key: value for key, value in evidence.to_json().items() if key not in left_out}


def _proven(item: Judged) -> Iterator[str]:
    """A line for each piece of evidence; an emulated board is never called a board."""
    places = {Place.HOST: "the build host", Place.EMULATED: "an emulated board"}
    for evidence in item.artifact.manifest.evidence:
        where = places.get(evidence.place, "a board")
        runtime = " ".join(evidence.where.get(key, "") for key in ("runtime", "version")).strip()
        stand_in = ", a stand-in for the board's runtime" if evidence.stand_in else ""
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in evidence.metrics.items())
        what = f": {numbers} ({evidence.samples} samples)" if numbers else ""
        if evidence.failure is not None:
            what = f": FAILED: {evidence.failure.outcome}: {evidence.failure.detail}"
        yield f"{evidence.rung} on {where} with {runtime}{stand_in}{what}"
    if not item.artifact.manifest.evidence:
        yield "nothing"


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, 100, subsequent_indent=indent, break_long_words=False) or [""]
