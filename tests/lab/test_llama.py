"""A GGUF file in llama.cpp on a CPU without dotprod and on one with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeship.artifact import read_artifact
from edgeship.device_tests.devices import lab_device
from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import boot
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.open_board import open_session
from edgeship.device_tests.smoke.run import smoke

pytestmark = [pytest.mark.slow, pytest.mark.shared, pytest.mark.timeout(900)]

DEADLINE_S = 600.0


@pytest.mark.parametrize(("name", "has_dotprod"), [("cortex-a53", False), ("raspberry-pi-5", True)])
def test_tinylm_says_the_same_in_the_package_and_in_the_program(
    lab: LabImage, llama: Path, tinylm: Path, name: str, has_dotprod: bool
) -> None:
    artifact = read_artifact(tinylm / "build/raspberry-pi-4/gguf-q4_0")
    with boot(lab_board(name), lab) as running:
        device = lab_device(name, running.address(), target=None)
        device = replace(device, programs={"llama.cpp": llama / "bin/llama-server"})
        with open_session(device) as board:
            assert ("asimddp" in board.facts.features) is has_dotprod
            runs = []
            for folder, program in (("package", None), ("program", board.program("llama.cpp"))):
                with board.folder(folder) as directory:
                    run = smoke(
                        board.connection,
                        directory,
                        artifact,
                        board.facts,
                        runtime="llama.cpp",
                        deadline_s=DEADLINE_S,
                        program=program,
                    )
                assert run.is_ok, run.sentence
                runs.append(run)
    package, program_run = runs
    assert package.where["runtime"] == "llama-cpp-python"
    assert program_run.where["runtime"] != "llama-cpp-python"
    kinds = [{case.kind for case in run.cases} for run in runs]
    assert kinds[0] == kinds[1] >= {"tokens", "kld"}
