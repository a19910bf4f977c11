"""What a program or library in ELF form needs of a board, as far as its file says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgeship.targets.compatibility_versions import newest

LARGEST_PAGE: Final = 65536
"""Of any AArch64 kernel, in bytes (Arm ARM, D8.2: granules of 4, 16 and 64 KiB)."""


@dataclass(frozen=True, kw_only=True)
class ElfNeeds:
    """Of one file. None, or empty, is no need.

    Attributes:
        name: Of the file, for messages.
        machine: As `uname -m` prints it: "aarch64", "x86_64".
        glibc: Newest GLIBC symbol version that it takes, like "2.34".
        glibcxx: Newest GLIBCXX symbol version of libstdc++, like "3.4.30".
        cxxabi: Newest CXXABI symbol version, like "1.3.13".
        libraries: That it asks the loader for, in its order.
        alignment: Largest page, in bytes, that its segments can be mapped with; a kernel with
            larger pages refuses it.
        features: /proc/cpuinfo names of what the CPU must have for every path through the file,
            sorted; of AArch64 only, the base architecture's (fp, asimd) are not named.
        optional_features: Of what it uses where the CPU has it.
    """

    name: str
    machine: str
    glibc: str | None = None
    glibcxx: str | None = None
    cxxabi: str | None = None
    libraries: tuple[str, ...] = ()
    alignment: int = LARGEST_PAGE
    features: tuple[str, ...] = ()
    optional_features: tuple[str, ...] = ()

    def fits_page(self, page_size: int) -> bool:
        """Whether a kernel whose pages have so many bytes can map it."""
        return page_size <= self.alignment


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What several files need together; each member is that of ElfNeeds which needs most.

    Attributes:
        machines: Of the files, sorted; more than one cannot run in one process.
        libraries: That none of the files is, sorted.
        alignment: The least of the files.
        features: All that any of the files needs.
    """

    machines: tuple[str, ...] = ()
    glibc: str | None = None
    glibcxx: str | None = None
    cxxabi: str | None = None
    libraries: tuple[str, ...] = ()
    alignment: int = LARGEST_PAGE
    features: tuple[str, ...] = ()
    optional_features: tuple[str, ...] = ()


def summed_needs(needs: Iterable[ElfNeeds]) -> Requirements:
    """The needs of files that are used together."""
    files = list(needs)
    own = {item.name for item in files}
    features = {feature for item in files for feature in item.features}
    optional = {feature for item in files for feature in item.optional_features}
    return Requirements(
        machines=tuple(sorted({item.machine for item in files})),
        glibc=newest(item.glibc for item in files),
        glibcxx=newest(item.glibcxx for item in files),
        cxxabi=newest(item.cxxabi for item in files),
        libraries=tuple(sorted({name for item in files for name in item.libraries} - own)),
        alignment=min((item.alignment for item in files), default=LARGEST_PAGE),
        features=tuple(sorted(features)),
        optional_features=tuple(sorted(optional - features)),
    )
