import os
from pathlib import Path

import pytest

from edgeship.targets.compatibility_versions import is_older
from edgeship.targets.elf import requirements, scan_elf

VARIABLE = "EDGESHIP_LLAMA_ARM"
OLDEST = "2.31"
"""glibc of Debian 11, Ubuntu 20.04 and JetPack 5."""


@pytest.fixture(scope="module")
def built() -> Path:
    named = os.environ.get(VARIABLE)
    directory = Path(named) if named else Path(__file__).parents[2] / ".cache/llama-arm"
    if not (directory / ".version").exists():
        pytest.skip(f"{directory} has no llama.cpp for Arm: run `make fixtures` or set {VARIABLE}")
    return directory


@pytest.mark.slow
def test_a_program_built_for_dotprod_needs_it(built: Path) -> None:
    needs = scan_elf(built / "dotprod/needs")
    assert needs.features == ("asimddp",)
    assert needs.machine == "aarch64"


@pytest.mark.slow
def test_a_program_that_asks_for_dotprod_does_not_need_it(built: Path) -> None:
    needs = scan_elf(built / "dotprod/uses")
    assert needs.features == ()
    assert needs.optional_features == ("asimddp",)


@pytest.mark.slow
def test_llama_cpp_for_every_board_runs_on_the_oldest(built: Path) -> None:
    together = requirements(
        [built / "bin/llama-server", built / "python/llama_cpp/lib/libllama.so"]
    )
    assert together.machines == ("aarch64",)
    assert together.features == ()
    assert together.glibc is not None
    assert not is_older(OLDEST, together.glibc)
    assert together.glibcxx is None
    assert together.alignment == 65536
