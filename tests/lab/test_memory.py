"""A model that is too big for a board's memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.artifact import read_artifact, write_manifest
from edgeship.cli import main
from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import boot
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.serial_log import killed_for_memory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., tuple[int, Any]]

PI: Final = "raspberry-pi-4"
MIB: Final = 1 << 20
BOARD_MIB: Final = 192
SLIM: Final = "x = self.bn1(self.conv1(image)).relu()"
WIDE: Final = f"{SLIM}.repeat(1, 1, 384, 384)"
"""float32[1, 4, 3072, 3072]: 144 MiB."""


@pytest.fixture
def wide(project: Path) -> Path:
    """The small net with one wide layer, of few images, built."""
    for folder in (project / "test").iterdir():
        for image in sorted(folder.iterdir())[1:]:
            image.unlink()
    shutil.rmtree(project / "calib")
    model = (project / "model.py").read_text()
    assert SLIM in model
    lines = [line for line in model.splitlines() if "self.conv2(x)" not in line]
    # a mean of so many numbers would depend on their order
    model = "\n".join(lines).replace(SLIM, WIDE).replace("x.mean((2, 3))", "x.amax((2, 3))")
    (project / "model.py").write_text(model)
    text = (project / "edgeship.toml").read_text()
    text = text.replace('[calibration]\ndata = "calib"\nsamples = 24\n', "")
    (project / "edgeship.toml").write_text(f'{text}onnx.precisions = ["fp32"]\n')
    assert main(["build", "-q", "-p", str(project / "edgeship.toml")]) == 0
    return project


def test_a_model_too_big_for_the_board_is_refused_and_otherwise_runs_out_of_memory(
    lab: LabImage, wide: Path, edgeship: Run, write_devices: Callable[..., Path]
) -> None:
    file = str(wide / "edgeship.toml")
    directory = wide / f"build/{PI}/onnx-fp32"
    with boot(replace(lab_board(PI), memory_bytes=BOARD_MIB * MIB), lab) as running:
        devices = str(write_devices(running.address()))
        arguments = ("test", PI, "--devices", devices, "--samples", "0", "-p", file)
        code, value = edgeship(*arguments)
        assert code == 9, value
        (problem,) = value["problems"]
        assert problem["what"] == "the board has not the memory that the model needs"

        manifest = read_artifact(directory).manifest  # what it says if nobody forecast anything
        needs = replace(manifest.requires, memory_bytes=None)
        write_manifest(directory, replace(manifest, requires=needs))
        code, value = edgeship(*arguments)
        killed = killed_for_memory(running.serial())
    (trial,) = value["trials"]
    assert trial["outcome"] == "out-of-memory", trial["sentence"]
    assert code == 6
    found = re.search(r"memory does not suffice \(it ended at (\d+) MiB\)", trial["sentence"])
    assert found is not None, trial["sentence"]
    assert 40 < int(found[1]) < BOARD_MIB
    assert [item.program for item in killed] == ["python3"]
    (evidence,) = (
        item
        for item in read_artifact(directory).manifest.evidence
        if item.command == "edgeship test"
    )
    assert evidence.failure is not None
    assert evidence.failure.outcome == "out-of-memory"
    assert "MiB" in evidence.failure.detail
    code, _ = edgeship("check", PI, "-p", file)
    assert code == 6
