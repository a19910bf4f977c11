from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.artifact import RuntimeNeed
from edgeship.targets import Target, load_target
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility import differences, misfits, unchecked
from edgeship.targets.compatibility_runtimes import usable_runtimes
from edgeship.targets.elf_needs import ElfNeeds
from edgeship.vocabulary import Format

rows = SimpleNamespace(**run_path(str(Path(__file__).with_name("rows.py"))))
PI_4: Final[Target] = rows.PI_4
PI_5: Final[Target] = rows.PI_5
LITERT: Final[FoundRuntime] = rows.LITERT
TFLITE: Final[FoundRuntime] = rows.TFLITE
BOARD: Final[BoardFacts] = rows.BOARD
SERVER: Final[ElfNeeds] = rows.SERVER
manifest = rows.manifest
only = rows.only


def test_a_board_with_all_of_it_fits() -> None:
    assert misfits(manifest(), BOARD, PI_4, copied=[replace(SERVER, features=())]) == []
    assert usable_runtimes(manifest(), BOARD) == (LITERT, TFLITE)


def test_what_the_probe_did_not_read_refuses_nothing() -> None:
    unknown = replace(LITERT, version=None)
    facts = BoardFacts(at="", runtimes=(unknown,))
    assert misfits(manifest(isa=("asimddp",)), facts, PI_4, copied=[SERVER]) == []
    assert unchecked(manifest(isa=("asimddp",)), facts, copied=[SERVER]) == [
        "the machine",
        "available memory",
        "free disk",
        "CPU features",
        "page size",
        "glibc",
        "libstdc++",
        "whether litert of unknown version is new enough",
    ]
    assert unchecked(manifest(), BOARD, copied=[SERVER]) == []


def test_dotprod_program_is_refused_for_a_pi_4_and_not_for_a_pi_5() -> None:
    problem = only(misfits(manifest(), BOARD, PI_4, copied=[SERVER]))
    assert problem.where == "llama-server"
    assert "no asimddp" in problem.what
    assert "illegal instruction" in problem.what
    pi_5 = replace(BOARD, features=(*BOARD.features, "asimddp"))
    assert misfits(manifest(), pi_5, PI_4, copied=[SERVER]) == []


def test_features_of_the_artifact_itself() -> None:
    problem = only(misfits(manifest(isa=("crc32", "i8mm")), BOARD, PI_4))
    assert (problem.where, problem.expected) == ("raspberry-pi-4/tflite-int8", "crc32, i8mm")
    assert "no i8mm" in problem.what


def test_features_that_are_only_used_where_they_are_need_nothing() -> None:
    program = replace(SERVER, features=(), optional_features=("asimddp", "sve"))
    assert misfits(manifest(), BOARD, PI_4, copied=[program]) == []


@pytest.mark.parametrize(
    ("changed", "name", "expected", "found"),
    [
        ({"glibc": "2.38"}, "glibc", "2.38 or newer", "2.36"),
        ({"glibcxx": "3.4.32"}, "libstdc++", "3.4.32 or newer", "3.4.30"),
        ({"machine": "x86_64"}, "machine", "x86_64", "aarch64"),
    ],
)
def test_libraries_and_machine(
    changed: dict[str, str], name: str, expected: str, found: str
) -> None:
    program = replace(SERVER, features=(), **changed)  # type: ignore[arg-type]  # all are text
    problem = only(misfits(manifest(), BOARD, PI_4, copied=[program]))
    assert name in problem.what
    assert (problem.expected, problem.found) == (expected, found)


def test_pages_larger_than_the_segments() -> None:
    program = replace(SERVER, features=(), alignment=4096)
    large = replace(BOARD, page_size=16384)
    assert misfits(manifest(), BOARD, PI_4, copied=[program]) == []
    problem = only(misfits(manifest(), large, PI_4, copied=[program]))
    assert (problem.expected, problem.found) == ("pages of at most 4096 bytes", "16384 bytes")
    assert misfits(manifest(), large, PI_4, copied=[replace(program, alignment=65536)]) == []


def test_memory_that_is_not_there() -> None:
    facts = replace(BOARD, memory_available_bytes=100_000_000)
    big = manifest(precision="fp32", memory_bytes=200_000_000)
    problem = only(misfits(big, facts, PI_4, others=[manifest()]))
    assert (problem.expected, problem.found) == ("200.0 MB available", "100.0 MB")
    assert problem.remedy.endswith("take raspberry-pi-4/tflite-int8, which fits")
    assert misfits(big, replace(facts, memory_available_bytes=200_000_000), PI_4) == []
    assert misfits(manifest(memory_bytes=None), facts, PI_4) == []


def test_memory_of_a_language_model_depends_on_its_context() -> None:
    need = RuntimeNeed(runtime="llama.cpp", min="0.5.0")
    big = manifest(Format.GGUF, need, precision="q4_0", memory_bytes=10**10)
    assert "targets.raspberry-pi-4.gguf.context" in only(misfits(big, BOARD, PI_4)).remedy


def test_disk_that_is_full() -> None:
    problem = only(misfits(manifest(), replace(BOARD, disk_free_bytes=299_999), PI_4))
    assert (problem.expected, problem.found) == ("300.0 kB free", "300.0 kB")


def test_another_machine_than_the_target() -> None:
    facts = replace(BOARD, arch="armv7l")
    assert (
        only(misfits(manifest(), facts, PI_4)).found == "Raspberry Pi 4 Model B Rev 1.5 with armv7l"
    )


def test_a_kit_is_for_one_compute_capability() -> None:
    orin = load_target("jetson-orin-nano")
    trt = FoundRuntime(name="tensorrt", version="10.3.0.30", kind="program")
    kit = manifest(Format.TENSORRT, RuntimeNeed(runtime="tensorrt", min="10.3.0"), precision="kit")
    facts = replace(BOARD, runtimes=(trt,), sm="8.7")
    assert misfits(kit, facts, orin) == []
    assert only(misfits(kit, replace(facts, sm="7.2"), orin)).found == "7.2"
    assert misfits(manifest(), replace(BOARD, sm="7.2"), orin) == []


def test_every_misfit_is_told_at_once() -> None:
    facts = replace(BOARD, runtimes=(), memory_available_bytes=1, disk_free_bytes=1, arch="armv7l")
    assert len(misfits(manifest(isa=("i8mm",)), facts, PI_4, copied=[SERVER])) == 6


def test_a_board_like_its_row_has_no_differences() -> None:
    assert differences(BOARD, PI_4) == []
    assert differences(BoardFacts(at=""), PI_4) == []


def test_differences_from_the_row() -> None:
    facts = replace(
        BOARD, glibc="2.31", python="3.9.2", page_size=16384, memory_bytes=1_000_000_000
    )
    assert differences(facts, PI_5) == [
        f"glibc is 2.31, 2.36 in {PI_5.os.image}",
        f"Python is 3.9.2, 3.11 in {PI_5.os.image}",
        "the CPU lacks "
        + ", ".join(feature for feature in PI_5.cpu.features if feature != "crc32")
        + " of raspberry-pi-5",
        "memory is 1.0 GB, 4.3 GB by raspberry-pi-5",
        'targets.raspberry-pi-5.os = "bookworm" was built for; there is also trixie',
    ]
