import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeship.device_tests.lab import tools
from edgeship.device_tests.lab.tools import TOOLS_VARIABLE, find_tools, run_tool
from edgeship.errors import RequirementMissing


def test_all_absent_programs_are_one_problem_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM", ())
    monkeypatch.delenv(TOOLS_VARIABLE, raising=False)
    with pytest.raises(RequirementMissing) as caught:
        find_tools(["qemu-system-aarch64", "mke2fs", "debugfs"])
    (problem,) = caught.value.problems
    assert "apt-get install e2fsprogs qemu-system-arm`" in problem.remedy
    assert problem.what == "qemu-system-aarch64, mke2fs, debugfs are not on this machine"


def test_programs_of_the_fixtures_are_found_after_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    write_program: Callable[[str, str], Path],
) -> None:
    folder = tmp_path / "fixtures/bin"
    folder.mkdir(parents=True)
    for name in ("edgeship-only-here", "edgeship-in-both"):
        (folder / name).touch(mode=0o755)
    both = write_program("edgeship-in-both", "#!/bin/sh\n")
    monkeypatch.setenv(TOOLS_VARIABLE, str(folder.parent))
    assert find_tools(["edgeship-only-here", "edgeship-in-both"]) == {
        "edgeship-only-here": str(folder / "edgeship-only-here"),
        "edgeship-in-both": str(both),
    }


def test_failed_program_is_an_error_with_its_last_words() -> None:
    code = "import sys; print('first'); sys.exit('no room on the disk')"
    with pytest.raises(RequirementMissing, match=r"status 1: first \| no room on the disk"):
        run_tool([sys.executable, "-c", code], deadline_s=60, doing="making the disk")


def test_program_that_hangs_is_ended_at_its_deadline() -> None:
    start = time.monotonic()
    with pytest.raises(RequirementMissing, match="no end in 0 s"):
        run_tool(["sleep", "60"], deadline_s=0.2, doing="waiting")
    assert time.monotonic() - start < 30
