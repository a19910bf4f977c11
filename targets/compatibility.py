"""Compatibility: what an artifact needs against what a board has, before anything is copied.

A problem is a fact against a fact: what the probe could not read refuses nothing, and is listed
by `unchecked`. How a board is unlike the row of its target, which need not matter to an artifact,
is listed by `differences`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeship.artifact import Manifest
from edgeship.errors import Problem
from edgeship.quantities import text_from_bytes
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility_binaries import binary_problems, missing_features
from edgeship.targets.compatibility_files import read_file_needs
from edgeship.targets.compatibility_runtimes import (
    comparable_release,
    runtime_problems,
    usable_runtimes,
)
from edgeship.targets.compatibility_versions import is_older, version_key
from edgeship.targets.elf_needs import ElfNeeds
from edgeship.targets.target import Target
from edgeship.vocabulary import Format


def misfits(
    manifest: Manifest,
    facts: BoardFacts,
    target: Target,
    *,
    model_file: Path | None = None,
    copied: Sequence[ElfNeeds] = (),
    brought: Sequence[FoundRuntime] = (),
    others: Sequence[Manifest] = (),
) -> list[Problem]:
    """Everything that an artifact needs and the board is known not to have.

    Args:
        manifest: Of the artifact.
        facts: Of the board, by its probe.
        target: That the artifact was built for, under its OS image.
        model_file: The artifact's model, whose header is read; None leaves that out.
        copied: Programs and libraries that are copied along.
        brought: Runtimes that are among them.
        others: Artifacts of the same build, to name one that fits.

    Raises:
        IntegrityRefused: `model_file` is no file of its format.
    """
    file = None if model_file is None else read_file_needs(model_file, manifest.format)
    where = _name(manifest)
    fitting = [
        _name(other)
        for other in others
        if usable_runtimes(other, facts, brought=brought) and not _short_of_memory(other, facts)
    ]
    return [
        *_other_machine(facts, target, where),
        *runtime_problems(
            manifest, facts, target, file=file, brought=brought, where=where, others=fitting
        ),
        *missing_features(where, manifest.requires.isa, facts),
        *_memory_problems(manifest, facts, where, fitting),
        *_disk_problems(manifest, facts, where),
        *(_engine_problems(facts, target, where) if manifest.format is Format.TENSORRT else ()),
        *(problem for needs in copied for problem in binary_problems(needs, facts)),
    ]


def unchecked(
    manifest: Manifest, facts: BoardFacts, *, copied: Sequence[ElfNeeds] = ()
) -> list[str]:
    """What could not be held against the board because the probe does not know it, in clauses."""
    known: dict[str, object] = {
        "the machine": facts.arch,
        "available memory": facts.memory_available_bytes,
        "free disk": facts.disk_free_bytes,
    }
    if manifest.requires.isa or any(needs.features for needs in copied):
        known["CPU features"] = facts.features or None
    if copied:
        known |= {"page size": facts.page_size, "glibc": facts.glibc}
    if any(needs.glibcxx for needs in copied):
        known["libstdc++"] = facts.glibcxx
    needed = {need.runtime for need in manifest.requires.any_of}
    runtimes = [
        f"whether {found.name} {found.version or 'of unknown version'} is new enough"
        for found in facts.runtimes
        if found.name in needed and version_key(comparable_release(found) or "") is None
    ]
    return [*(name for name, value in known.items() if value is None), *runtimes]


def differences(facts: BoardFacts, target: Target) -> list[str]:
    """How the board is unlike the row of the catalogue, in clauses; none of it refuses anything."""
    os, cpu = target.os, target.cpu
    found = []
    if is_older(facts.glibc, os.glibc or "0"):
        found.append(f"glibc is {facts.glibc}, {os.glibc} in {os.image}")
    if facts.python and os.python and facts.python.split(".")[:2] != os.python.split(".")[:2]:
        found.append(f"Python is {facts.python}, {os.python} in {os.image}")
    if facts.page_size and os.page_size and facts.page_size != os.page_size:
        found.append(f"pages are of {facts.page_size} bytes, {os.page_size} in {os.image}")
    lacking = [feature for feature in cpu.features if feature not in facts.features]
    if facts.features and lacking:
        found.append(f"the CPU lacks {', '.join(lacking)} of {target.name}")
    if facts.memory_bytes and facts.memory_bytes < target.memory_bytes // 2:
        memory = text_from_bytes(facts.memory_bytes)
        found.append(f"memory is {memory}, {text_from_bytes(target.memory_bytes)} by {target.name}")
    if found and len(target.os_choices) > 1:
        rest = ", ".join(choice for choice in target.os_choices if choice != os.id)
        found.append(f'targets.{target.name}.os = "{os.id}" was built for; there is also {rest}')
    return found


def _name(manifest: Manifest) -> str:
    return f"{manifest.target}/{manifest.format}-{manifest.precision}"


def _other_machine(facts: BoardFacts, target: Target, where: str) -> Iterator[Problem]:
    if facts.arch is not None and facts.arch != target.cpu.arch:
        yield Problem(
            where=where,
            what="the board is not of this target",
            expected=f"{target.board}, {target.cpu.arch}",
            found=" with ".join(part for part in (facts.model, facts.arch) if part),
            remedy="name another device, or build for a target with its machine",
        )


def _memory_problems(
    manifest: Manifest, facts: BoardFacts, where: str, others: Sequence[str]
) -> Iterator[Problem]:
    if not _short_of_memory(manifest, facts):
        return
    ways = ["end other programs there"]
    if manifest.format is Format.GGUF:
        ways.append(f"lower targets.{manifest.target}.gguf.context")
    ways += [f"take {other}, which fits" for other in others[:1]] or ["build a smaller precision"]
    yield Problem(
        where=where,
        what="the board has not the memory that the model needs",
        expected=f"{text_from_bytes(manifest.requires.memory_bytes or 0)} available",
        found=text_from_bytes(_memory(facts) or 0),
        remedy=", or ".join(ways),
    )


def _short_of_memory(manifest: Manifest, facts: BoardFacts) -> bool:
    needed, found = manifest.requires.memory_bytes, _memory(facts)
    return needed is not None and found is not None and found < needed


def _memory(facts: BoardFacts) -> int | None:
    available = facts.memory_available_bytes
    return facts.memory_bytes if available is None else available


def _disk_problems(manifest: Manifest, facts: BoardFacts, where: str) -> Iterator[Problem]:
    needed = sum(file.bytes for file in manifest.files)
    if facts.disk_free_bytes is not None and facts.disk_free_bytes < needed:
        yield Problem(
            where=where,
            what="the board has not the room for its files",
            expected=f"{text_from_bytes(needed)} free",
            found=text_from_bytes(facts.disk_free_bytes),
            remedy="make room there, or name another `directory` for the device",
        )


def _engine_problems(facts: BoardFacts, target: Target, where: str) -> Iterator[Problem]:
    """A kit is for one compute capability; which TensorRT is in `requires.any_of`."""
    sm = None if target.gpu is None else target.gpu.sm
    if sm is not None and facts.sm is not None and facts.sm != sm:
        yield Problem(
            where=where,
            what="the board's GPU is not that of the target",
            expected=f"compute capability {sm}",
            found=facts.sm,
            remedy="build for the target that this board is",
        )
