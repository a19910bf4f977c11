"""ELF files: what they need of a board, read from the file itself.

A wheel's tag promises a glibc; the symbol versions inside say which one it takes (ai-edge-litert
2.3.0 is tagged manylinux_2_27 and takes GLIBC_2.34). For instruction sets there is no tag at all.

**The rule for instructions** (AArch64). A file's *needs* are the features whose instructions are in
its code, unless the file asks at run time what the CPU can do: then its author had a reason to
ask, and they are *used where the CPU has them*. It asks where it

- calls getauxval, other than for the one bit of HWCAP_ATOMICS that libgcc and compiler-rt take for
  their outlined atomics in nearly every file; or
- takes functions of a library that asks for it (cpuinfo, libgcc's __aarch64_cpu_features), or lets
  the loader choose (STT_GNU_IFUNC, R_AARCH64_IRELATIVE); or
- reads an identification register.

Instructions of outlined atomics count for neither. That a file asks does not prove that it obeys:
one with dotprod in all of its code that asks for SVE alone passes, and dies on the board, where the
smoke test names it. The opposite error, a file refused that would run, is the worse one, as nothing
after it would show that.

Data between instructions may look like one. Where the file has mapping symbols ($d, $x: ELF for the
Arm 64-bit Architecture, IHI 0056), data is left out; stripped files have none, and compilers put
data elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import IntegrityRefused, Problem, RequirementMissing
from edgeship.targets.compatibility_versions import newest
from edgeship.targets.elf_needs import (
    LARGEST_PAGE,
    ElfNeeds,
    Requirements,
    summed_needs,
)

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC: Final = b"\x7fELF"
_MACHINES: Final = {
    "EM_AARCH64": "aarch64",
    "EM_X86_64": "x86_64",
    "EM_ARM": "armv7l",
    "EM_386": "i686",
    "EM_RISCV": "riscv64",
}
"""As `uname -m` prints them; 32-bit Arm as its newest architecture does."""
_VERSION: Final = re.compile(r"(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)*)$")
_RELATIVE: Final = "GLIBC_ABI_DT_RELR"
_RELATIVE_SINCE: Final = "2.36"
"""What the loader has to know of relative relocations, and the glibc that does (its NEWS)."""
_OF_DAMAGE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError)
"""What pyelftools and we ourselves meet in damaged tables; OSError is of seeking beyond a file."""
_NEED_BYTES: Final = 16
"""Of an Elf64_Verneed or Elf32_Verneed."""
_WEAK: Final = 0x2
"""VER_FLG_WEAK: the loader goes on without."""


def scan_elf(path: Path) -> ElfNeeds:
    """What one program or library needs; reads it once, and runs nothing of it.

    Raises:
        IntegrityRefused: Not a whole ELF file, or one whose section table was stripped off.
        RequirementMissing: pyelftools is not installed.
    """
    elf_file, error_type = _reader()
    with path.open("rb") as stream:
        try:
            file = elf_file(stream)
            _require_whole(file, path)
            return _needs(file, path.name)
        except IntegrityRefused:
            raise
        except (error_type, *_OF_DAMAGE) as error:
            raise _refused(path, found=str(error)[:200] or type(error).__name__) from error


def requirements(paths: Iterable[Path]) -> Requirements:
    """What files that are used together need; those that are no ELF files are passed over.

    Raises:
        IntegrityRefused: As `scan_elf`.
        RequirementMissing: As `scan_elf`.
    """
    return summed_needs(scan_elf(path) for path in paths if is_elf(path))


def is_elf(path: Path) -> bool:
    """Whether the file begins as an ELF file does."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _needs(file: ELFFile, name: str) -> ElfNeeds:
    versions: dict[str, list[str]] = {"GLIBC": [], "GLIBCXX": [], "CXXABI": []}
    for family, version in _versions(file):
        versions[family].append(version)
    machine = file["e_machine"]
    needed, optional = _features(file) if machine == "EM_AARCH64" else ((), ())
    segments = [item["p_align"] for item in file.iter_segments() if item["p_type"] == "PT_LOAD"]
    return ElfNeeds(
        name=name,
        machine=_MACHINES.get(machine, str(machine)),
        glibc=newest(versions["GLIBC"]),
        glibcxx=newest(versions["GLIBCXX"]),
        cxxabi=newest(versions["CXXABI"]),
        libraries=tuple(_libraries(file)),
        alignment=min([LARGEST_PAGE, *segments]),
        features=needed,
        optional_features=optional,
    )


def _features(file: ELFFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the CPU: what the file needs, and what it uses where it is there."""
    from edgeship.targets.elf_dispatch import asks_cpu
    from edgeship.targets.elf_instructions import feature_instructions
    from edgeship.targets.elf_symbols import read_code

    codes = read_code(file)
    found = sorted({name for code in codes for name in feature_instructions(code.words)})
    if found and asks_cpu(file, codes):
        return (), tuple(found)
    return tuple(found), ()


def _versions(file: ELFFile) -> Iterator[tuple[str, str]]:
    """Family and version of each symbol version that another file has to give."""
    section: Any = file.get_section_by_name(".gnu.version_r")
    if section is None or section["sh_info"] > section["sh_size"] // _NEED_BYTES:
        return  # none, or a number of them that cannot be
    for _, auxiliaries in section.iter_versions():
        for item in auxiliaries:
            match = _VERSION.match(item.name)
            if item["vna_flags"] & _WEAK:
                continue
            if item.name == _RELATIVE:
                yield "GLIBC", _RELATIVE_SINCE
            elif match is not None:
                yield match[1], match[2]


def _libraries(file: ELFFile) -> Iterator[str]:
    section: Any = file.get_section_by_name(".dynamic")
    for tag in () if section is None else section.iter_tags("DT_NEEDED"):
        yield tag.needed


def _require_whole(file: ELFFile, path: Path) -> None:
    """Every section and segment is in the file: of a truncated one, the table comes last."""
    size = path.stat().st_size
    if not file.num_sections():
        raise _refused(path, found="no section table")
    tables = file.num_sections() * file["e_shentsize"], file.num_segments() * file["e_phentsize"]
    if max(tables) > size:
        raise _refused(path, found=f"{size} bytes, and tables of {sum(tables)}")
    ends = [
        section["sh_offset"] + section["sh_size"]
        for section in file.iter_sections()
        if section["sh_type"] != "SHT_NOBITS"
    ]
    ends += [segment["p_offset"] + segment["p_filesz"] for segment in file.iter_segments()]
    if max(ends) > size:
        raise _refused(path, found=f"{size} bytes, and contents up to byte {max(ends)}")


def _refused(path: Path, *, found: str) -> IntegrityRefused:
    problem = Problem(
        where=str(path),
        what="what this program or library needs cannot be read",
        expected="a whole ELF file with its section table",
        found=found,
        remedy="copy or build it again",
    )
    return IntegrityRefused(problem)


def _reader() -> tuple[type[ELFFile], type[Exception]]:
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        problem = Problem(
            where="ELF files",
            what="the package pyelftools is not installed",
            remedy="pip install 'edgeship[devices]'",
        )
        raise RequirementMissing(problem) from error
    return ELFFile, ELFError
