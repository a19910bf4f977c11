import platform
import random
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.errors import ExitCode, IntegrityRefused
from edgeship.targets.compatibility_versions import is_older
from edgeship.targets.elf import is_elf, requirements, scan_elf
from edgeship.targets.elf_needs import ElfNeeds

files = SimpleNamespace(**run_path(str(Path(__file__).with_name("elf_files.py"))))
library, call_of_stub = files.library, files.call_of_stub
MOV_W0_16, RET, SDOT = files.MOV_W0_16, files.RET, files.SDOT
UBFX_W0_8_1 = 0x53082000
TBZ_W0_20 = 0x36A00040
MRS_X0_ISAR0 = 0xD5380600
ASKS = (MOV_W0_16, call_of_stub(1), TBZ_W0_20, RET)
OUTLINED = (MOV_W0_16, call_of_stub(1), UBFX_W0_8_1, RET)


def scan(directory: Path, content: bytes) -> ElfNeeds:
    file = directory / "library.so"
    file.write_bytes(content)
    return scan_elf(file)


# Instructions


def test_instructions_of_a_file_that_asks_nothing_are_needed(tmp_path: Path) -> None:
    needs = scan(tmp_path, library([SDOT, RET], imports=["printf"]))
    assert needs.machine == "aarch64"
    assert needs.features == ("asimddp",)
    assert needs.optional_features == ()


@pytest.mark.parametrize("name", ["getauxval", "__getauxval"])
def test_a_file_that_asks_may_do_without(tmp_path: Path, name: str) -> None:
    needs = scan(tmp_path, library([*ASKS, SDOT, RET], imports=[name]))
    assert needs.features == ()
    assert needs.optional_features == ("asimddp",)


@pytest.mark.parametrize("name", ["getauxval", "__getauxval"])
def test_asking_for_outlined_atomics_is_no_asking(tmp_path: Path, name: str) -> None:
    needs = scan(tmp_path, library([*OUTLINED, SDOT, RET], imports=[name]))
    assert needs.features == ("asimddp",)


def test_asking_for_both_is_asking(tmp_path: Path) -> None:
    second = (MOV_W0_16, call_of_stub(len(OUTLINED) + 1), TBZ_W0_20, RET)
    # the bit is taken after the first call, too far from the second
    text = [*OUTLINED, *second, *[RET] * 8, SDOT, RET]
    assert scan(tmp_path, library(text, imports=["getauxval"])).features == ()


def test_a_pointer_to_the_function_is_asking(tmp_path: Path) -> None:
    glob_dat = library([SDOT, RET], imports=["getauxval"], relocation=1025)
    assert scan(tmp_path, glob_dat).features == ()


def test_an_import_that_nobody_calls_is_no_asking(tmp_path: Path) -> None:
    assert scan(tmp_path, library([SDOT, RET], imports=["getauxval"])).features == ("asimddp",)


@pytest.mark.parametrize("name", ["cpuinfo_initialize", "__aarch64_cpu_features"])
def test_a_library_that_asks_for_it_is_asking(tmp_path: Path, name: str) -> None:
    assert scan(tmp_path, library([SDOT, RET], imports=["printf", name])).features == ()


def test_reading_an_identification_register_is_asking(tmp_path: Path) -> None:
    assert scan(tmp_path, library([MRS_X0_ISAR0, SDOT, RET])).features == ()


def test_the_loader_choosing_functions_is_asking(tmp_path: Path) -> None:
    assert scan(tmp_path, library([SDOT, RET], imports=["x"], relocation=1032)).features == ()


def test_looking_the_function_up_by_name_is_asking(tmp_path: Path) -> None:
    assert scan(tmp_path, library([SDOT, RET], rodata=b"x\0getauxval\0")).features == ()


def test_data_between_instructions_is_none(tmp_path: Path) -> None:
    text = [RET, SDOT, SDOT, RET]
    mapped = library(text, mapping=[("$x", 0), ("$d.1", 1), ("$x.2", 3)])
    assert scan(tmp_path, mapped).features == ()
    elsewhere = library(text, mapping=[("$x", 0), ("$d", 2), ("$x", 3)])
    assert scan(tmp_path, elsewhere).features == ("asimddp",)
    assert scan(tmp_path, library(text, mapping=[("$d", 1)])).features == ()
    assert scan(tmp_path, library(text, mapping=[("data", 1)])).features == ("asimddp",)


# What is not code


def test_the_newest_symbol_versions_count(tmp_path: Path) -> None:
    versions = {
        "libc.so.6": [("GLIBC_2.9", 0), ("GLIBC_2.34", 0), ("GLIBC_PRIVATE", 0)],
        "libm.so.6": [("GLIBC_2.29", 0)],
        "libstdc++.so.6": [("GLIBCXX_3.4.9", 0), ("GLIBCXX_3.4.30", 0), ("CXXABI_1.3.13", 0)],
    }
    needs = scan(tmp_path, library([RET], versions=versions))
    assert (needs.glibc, needs.glibcxx, needs.cxxabi) == ("2.34", "3.4.30", "1.3.13")
    assert needs.libraries == ("libc.so.6", "libm.so.6", "libstdc++.so.6")


def test_a_weak_version_is_no_need(tmp_path: Path) -> None:
    versions = {"libc.so.6": [("GLIBC_2.17", 0), ("GLIBC_2.38", 2)]}
    assert scan(tmp_path, library([RET], versions=versions)).glibc == "2.17"


def test_relative_relocations_need_the_glibc_that_knows_them(tmp_path: Path) -> None:
    versions = {"libc.so.6": [("GLIBC_2.17", 0), ("GLIBC_ABI_DT_RELR", 0)]}
    assert scan(tmp_path, library([RET], versions=versions)).glibc == "2.36"


def test_small_alignment_does_not_fit_large_pages(tmp_path: Path) -> None:
    needs = scan(tmp_path, library([RET], alignment=0x1000))
    assert needs.alignment == 4096
    assert needs.fits_page(4096)
    assert not needs.fits_page(16384)
    assert scan(tmp_path, library([RET])).fits_page(65536)


def test_a_library_that_runs_here_needs_what_is_here() -> None:
    file = next((Path(np.__file__).parent / "_core").glob("_multiarray_umath*.so"))
    needs = scan_elf(file)
    assert needs.machine == platform.machine()
    assert needs.glibc is not None
    assert not is_older(platform.libc_ver()[1], needs.glibc)
    assert "libc.so.6" in needs.libraries


# Several files


def test_files_together_need_all_that_each_needs(tmp_path: Path) -> None:
    one, other, text = tmp_path / "libone.so", tmp_path / "libother.so", tmp_path / "LICENSE"
    asked = {"libother.so": [("GLIBC_2.4", 0)], "libc.so.6": [("GLIBC_2.28", 0)]}
    one.write_bytes(library([*ASKS, SDOT, 0x4E82A420], imports=["getauxval"], versions=asked))
    other.write_bytes(library([SDOT, RET], alignment=0x4000))
    text.write_text("no ELF")
    together = requirements([one, other, text])
    assert together.machines == ("aarch64",)
    assert together.features == ("asimddp",)
    assert together.optional_features == ("i8mm",)
    assert together.libraries == ("libc.so.6",)
    assert (together.glibc, together.alignment) == ("2.28", 0x4000)


# Files that are broken


def test_every_truncation_is_one_clear_error(tmp_path: Path) -> None:
    versions = {"libc.so.6": [("GLIBC_2.17", 0)]}
    whole = library([*ASKS, SDOT], imports=["getauxval"], versions=versions, mapping=[("$x", 0)])
    assert scan(tmp_path, whole).glibc == "2.17"
    for length in range(0, len(whole), 17):
        with pytest.raises(IntegrityRefused) as caught:
            scan(tmp_path, whole[:length])
        assert caught.value.exit_code is ExitCode.INTEGRITY
        assert len(str(caught.value).splitlines()) == 1


def test_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    generator = random.Random(0)
    versions = {"libc.so.6": [("GLIBC_2.17", 0)]}
    whole = library([*ASKS, SDOT], imports=["getauxval"], versions=versions, mapping=[("$x", 0)])
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            scan(tmp_path, bytes(damaged))
        except IntegrityRefused:
            refused += 1
    assert 20 < refused < 150


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(5000)])
def test_what_is_no_elf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(IntegrityRefused, match="cannot be read"):
        scan(tmp_path, content)


def test_elf_files_are_told_by_their_magic(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(library([RET]))
    assert is_elf(file)
    file.write_bytes(b"\x7fEL")
    assert not is_elf(file)
