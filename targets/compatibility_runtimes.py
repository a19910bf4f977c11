"""Runtimes: which of those that a board has can run an artifact, and why the others cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from edgeship.artifact import Manifest, RuntimeNeed
from edgeship.errors import Problem
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility_files import FileNeeds
from edgeship.targets.compatibility_versions import is_older, version_key
from edgeship.targets.target import Runtime, Target

_PYTHON: Final = "python"
_ONNX: Final = (
    ("0", 17, 8),
    ("1.14", 18, 8),
    ("1.15", 18, 9),
    ("1.16", 19, 9),
    ("1.17", 20, 9),
    ("1.18", 21, 10),
    ("1.21", 22, 10),
    ("1.23", 23, 11),
    ("1.24", 25, 13),
    ("1.25", 26, 13),
)
"""From this release of onnxruntime on, the highest opset and IR version that it takes. From 1.15
on measured, with a file of one Identity, up to 1.31.1; the first two rows are those of the page
"ONNX Runtime compatibility" of its documentation."""
_LLAMA_BINDINGS: Final[Mapping[str, str]] = {"0.3.36": "0.5.0"}
"""What llama.cpp in a release of llama-cpp-python calls itself (its source archive)."""
_LLAMA_RELEASE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+")
"""Begins "0.5.0-dev (build 1, commit 0c1e570)", as llama.cpp says that was not built of a release
tag; the catalogue's 0.5.0 is such a build. Before 0.x there were build numbers, "4321 (1a2b3c4)",
which cannot be held against those."""


def usable_runtimes(
    manifest: Manifest,
    facts: BoardFacts,
    *,
    file: FileNeeds | None = None,
    brought: Sequence[FoundRuntime] = (),
) -> tuple[FoundRuntime, ...]:
    """Runtimes of the board that fit, in the order of the manifest.

    A runtime that does not say its version fits: nothing is refused for what is not known.

    Args:
        manifest: With `requires.any_of`.
        facts: With what is installed there.
        file: What the model file asks; None where it was not read.
        brought: Runtimes that are copied along; they go before those of the board.
    """
    return tuple(
        found
        for need in manifest.requires.any_of
        for found in (*brought, *facts.runtimes)
        if found.name == need.runtime and obstacle(need, found, file) is None
    )


def runtime_problems(
    manifest: Manifest,
    facts: BoardFacts,
    target: Target,
    *,
    file: FileNeeds | None,
    brought: Sequence[FoundRuntime],
    where: str,
    others: Sequence[str],
) -> list[Problem]:
    """One problem where no runtime fits; `others` are artifacts of the same build that do."""
    if usable_runtimes(manifest, facts, file=file, brought=brought):
        return []
    needs = manifest.requires.any_of
    expected = " or ".join(f"{need.runtime} from {need.min} on" for need in needs)
    present = [*brought, *facts.runtimes]
    obstacles = [
        text
        for need in needs
        for found in present
        if found.name == need.runtime and (text := obstacle(need, found, file)) is not None
    ]
    return [
        Problem(
            where=where,
            what="no runtime of the board can run this artifact",
            expected=expected,
            found="; ".join(obstacles) or _what_is_there(facts, present),
            remedy=_remedy(manifest, facts, target, others),
        )
    ]


def obstacle(need: RuntimeNeed, found: FoundRuntime, file: FileNeeds | None) -> str | None:
    """Why a runtime cannot run what needs it, in one clause; None where nothing is known."""
    if found.problem is not None:
        return f"{_named(found)}, but {found.problem}"
    release = comparable_release(found)
    if is_older(release, need.min):
        return f"{_named(found)}, which is older"
    if file is None:
        return None
    if file.unknown_types:
        return f"{_named(found)}, and no llama.cpp reads {', '.join(file.unknown_types)}"
    if found.name == Runtime.ONNXRUNTIME and release is not None:
        return _onnx_obstacle(found, release, file)
    return None


def comparable_release(found: FoundRuntime) -> str | None:
    """Its version in the numbering of the catalogue; None where that is not known.

    llama.cpp in a Python package has the package's version, and older programs a build number.
    """
    if found.version is None or found.name != Runtime.LLAMA_CPP:
        return found.version
    if found.kind != _PYTHON:
        match = _LLAMA_RELEASE.match(found.version)
        return None if match is None else match[0]
    known = [key for key in _LLAMA_BINDINGS if not is_older(found.version, key)]
    return _LLAMA_BINDINGS[known[-1]] if known and version_key(found.version) else None


def _onnx_obstacle(found: FoundRuntime, release: str, file: FileNeeds) -> str | None:
    rows = [row for row in _ONNX if not is_older(release, row[0])]
    if version_key(release) is None or not rows:
        return None
    _, opset, ir = rows[-1]
    if (file.onnx_opset or 0) > opset:
        return f"{_named(found)}, whose highest opset is {opset} and the file's {file.onnx_opset}"
    if (file.onnx_ir or 0) > ir:
        return f"{_named(found)}, whose highest IR version is {ir} and the file's {file.onnx_ir}"
    return None


def _named(found: FoundRuntime) -> str:
    return found.name if found.version is None else f"{found.name} {found.version}"


def _what_is_there(facts: BoardFacts, present: Sequence[FoundRuntime]) -> str:
    if present:
        return ", ".join(dict.fromkeys(_named(found) for found in present))
    return "no runtime" if facts.python else "no runtime, and no Python to look for one with"


def _remedy(manifest: Manifest, facts: BoardFacts, target: Target, others: Sequence[str]) -> str:
    """What would fit: a version that the catalogue knows for this board, or another artifact."""
    least = {need.runtime: need.min for need in manifest.requires.any_of}
    known = [
        f"{fact.name} {fact.version}"
        for fact in target.formats[manifest.format].runtimes
        if fact.name in least and not is_older(fact.version, least[fact.name])
    ]
    ways = []
    if known:
        ways.append(f"install {' or '.join(known)} there{_for_python(facts, target)}")
    ways += [f"take {other}, which fits" for other in others[:1]]
    return ", or ".join(ways) or "install one of these, or build for what the board has"


def _for_python(facts: BoardFacts, target: Target) -> str:
    """What the catalogue's versions were looked up for, where the board has another Python."""
    own, row = facts.python, target.os.python
    if own is None or row is None or own.split(".")[:2] == row.split(".")[:2]:
        return ""
    return f" (known for Python {row} of {target.os.image}; the board has {own})"
