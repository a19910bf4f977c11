"""Binaries: whether programs and libraries can start on a board, by what their files say."""

from __future__ import annotations

from collections.abc import Iterator

from edgeship.errors import Problem
from edgeship.targets.board_facts import BoardFacts
from edgeship.targets.compatibility_versions import is_older
from edgeship.targets.elf_needs import ElfNeeds


def binary_problems(needs: ElfNeeds, facts: BoardFacts) -> Iterator[Problem]:
    """Everything of one file that the board is known not to have."""
    if facts.arch is not None and needs.machine != facts.arch:
        yield Problem(
            where=needs.name,
            what="the file is for another machine",
            expected=needs.machine,
            found=facts.arch,
            remedy=f"build it for {facts.arch}",
        )
        return
    yield from missing_features(needs.name, needs.features, facts)
    yield from _old_libraries(needs, facts)
    if facts.page_size is not None and not needs.fits_page(facts.page_size):
        yield Problem(
            where=needs.name,
            what="the kernel cannot map the file: its pages are larger than the file's segments",
            expected=f"pages of at most {needs.alignment} bytes",
            found=f"{facts.page_size} bytes",
            remedy=f"link it with -z max-page-size={max(facts.page_size, 65536)}, "
            "or boot a kernel with smaller pages",
        )


def missing_features(where: str, features: tuple[str, ...], facts: BoardFacts) -> Iterator[Problem]:
    """A problem where the CPU is known to lack some of them: it would die of SIGILL."""
    missing = [feature for feature in features if feature not in facts.features]
    if missing and facts.features:
        yield Problem(
            where=where,
            what=f"the board's CPU has no {', '.join(missing)}: it would end as an "
            "illegal instruction",
            expected=", ".join(features),
            found=f"{facts.cpu or 'a CPU'} with {' '.join(facts.features)}",
            remedy="build it for the base architecture, or so that it asks the CPU first",
        )


def _old_libraries(needs: ElfNeeds, facts: BoardFacts) -> Iterator[Problem]:
    pairs = (
        ("glibc", needs.glibc, facts.glibc),
        ("libstdc++ with GLIBCXX", needs.glibcxx, facts.glibcxx),
    )
    for name, needed, found in pairs:
        if needed is not None and is_older(found, needed):
            yield Problem(
                where=needs.name,
                what=f"the board's {name} is older than the file needs",
                expected=f"{needed} or newer",
                found=found,
                remedy=f"build it against {found}, or install a newer OS image on the board",
            )
