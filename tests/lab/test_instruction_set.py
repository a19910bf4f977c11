"""A program with dotprod in all of its code, on a CPU without it and on one with it.

Kernels call the feature asimddp.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from edgeship.artifact import read_artifact
from edgeship.cli import main
from edgeship.device_tests.devices import lab_device
from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import RunningBoard, boot
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.open_board import OpenBoard, open_session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., tuple[int, Any]]

TESTS: Final = Path(__file__).parents[1]
faults = SimpleNamespace(**run_path(str(TESTS / "device_tests/transports/faults.py")))
texts = SimpleNamespace(**run_path(str(TESTS / "pipeline/test_gguf.py")))

PI: Final = "raspberry-pi-4"
DEADLINE_S: Final = 120.0
PADDING: Final = 8 << 20
"""More than all else that goes to the board: probe, program of boards, artifact."""
SUM: Final = sum((index - 1) * 3 * index for index in range(16))
"""What the programs print: the products of their two vectors, with one argument."""
PROJECT: Final = f"""\
[model]
name = "tiny"
hf = "hf"
task = "text-generation"
[model.inputs.text]
tokenizer = "."
length = 64
[evaluation]
data = "text.txt"
metric = "perplexity"
[targets.{PI}]
formats = ["gguf"]
gguf.precisions = ["f16"]
"""


@pytest.fixture(scope="module")
def pi(lab: LabImage) -> Iterator[RunningBoard]:
    with boot(lab_board(PI), lab) as running:
        yield running


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    (directory / "hf").mkdir()
    texts.train_llama(directory / "hf")
    (directory / "text.txt").write_text(texts.text(4, 20))
    (directory / "edgeship.toml").write_text(PROJECT)
    assert main(["build", "-q", "-p", str(directory / "edgeship.toml")]) == 0
    return directory


@pytest.fixture
def program(llama: Path, tmp_path: Path) -> Path:
    """The one that needs dotprod, with bytes behind it that no upload can hide."""
    file = tmp_path / "llama-server"
    shutil.copy(llama / "dotprod/needs", file)
    with file.open("ab") as stream:
        stream.write(os.urandom(PADDING))
    return file


@contextmanager
def brought(running: RunningBoard, program: Path) -> Iterator[OpenBoard]:
    device = lab_device("desk", running.address(), target=None)
    with open_session(replace(device, programs={"llama.cpp": program})) as board:
        assert board.misfits == []
        yield board


def said(board: OpenBoard, path: str | None) -> int:
    assert path is not None
    ended = board.connection.run([path], deadline_s=DEADLINE_S)
    assert ended.is_ok, ended
    return int(ended.stdout)


def test_a_program_of_another_cpu_is_refused_before_it_is_copied_and_dies_by_force(
    pi: RunningBoard,
    language_model: Path,
    program: Path,
    edgeship: Run,
    write_devices: Callable[..., Path],
    tmp_path: Path,
) -> None:
    address = pi.address()
    arguments = ["test", PI, "--samples", "0", "-p", str(language_model / "edgeship.toml")]
    known = tmp_path / "known_hosts"
    with faults.FaultyProxy(address.port, []) as proxy:
        known.write_text(
            address.known_hosts.read_text().replace(str(address.port), str(proxy.port))
        )
        address = replace(address, known_hosts=known)
        file = write_devices(address, programs={"llama.cpp": program}, port=proxy.port)
        arguments += ["--devices", str(file)]

        code, value = edgeship(*arguments)
        assert code == 9, value
        (problem,) = value["problems"]
        assert "has no asimddp: it would end as an illegal instruction" in problem["what"]
        assert "Cortex-A72" in problem["found"]
        assert 0 < proxy.carried[True] < PADDING

        before = proxy.carried[True]
        code, value = edgeship(*arguments, "--force")
        assert proxy.carried[True] - before > PADDING  # so much, had it been copied before
    (trial,) = value["trials"]
    assert trial["outcome"] == "illegal-instruction", trial["sentence"]
    assert code == 6
    assert any("forced, and so not kept as evidence" in note for note in trial["notes"])
    manifest = read_artifact(language_model / f"build/{PI}/gguf-f16").manifest
    assert {item.command for item in manifest.evidence} == {"edgeship build"}


def test_a_program_that_asks_the_cpu_is_brought_along(pi: RunningBoard, llama: Path) -> None:
    with brought(pi, llama / "dotprod/uses") as board:
        assert "asimddp" not in board.facts.features
        assert said(board, board.program("llama.cpp")) == SUM


def test_a_cortex_a76_takes_both(lab: LabImage, llama: Path) -> None:
    with (
        boot(lab_board("raspberry-pi-5"), lab) as running,
        brought(running, llama / "dotprod/needs") as board,
    ):
        assert "asimddp" in board.facts.features
        assert said(board, board.program("llama.cpp")) == SUM
        board.connection.put(
            {"uses": llama / "dotprod/uses"}, board.directory, deadline_s=DEADLINE_S
        )
        assert said(board, f"{board.directory}/uses") == SUM
