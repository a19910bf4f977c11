"""Tests of built artifacts on a board; see `plugin.py`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from edgeship.artifact import MANIFEST_NAME, Artifact, read_artifact
from edgeship.device_tests.open_board import OpenBoard
from edgeship.device_tests.plugin import BoardUnderTest
from edgeship.device_tests.smoke.result import SmokeRun
from edgeship.device_tests.smoke.run import smoke
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.targets import load_target, target_names
from edgeship.targets.compatibility import misfits
from edgeship.targets.compatibility_runtimes import usable_runtimes
from edgeship.vocabulary import Role

_DEADLINE_S = 1800.0
"""A choice; emulated boards are slow."""


class Case(NamedTuple):
    """One artifact in one of the runtimes that load it."""

    directory: Path
    runtime: str

    @property
    def name(self) -> str:
        """`<target>/<format>-<precision>-<runtime>`."""
        return f"{self.directory.parent.name}/{self.directory.name}-{self.runtime}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each artifact in each of its runtimes."""
    if "case" in metafunc.fixturenames:
        cases = _cases(metafunc.config.getoption("--artifacts"))
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def test_the_board_answers(board_under_test: BoardUnderTest) -> None:
    """It is reached, and its probe says what machine it is."""
    assert board_under_test.open().facts.arch


def test_the_golden_pack_matches(board_under_test: BoardUnderTest, case: Case) -> None:
    """What the artifact gives on the board is what it gave where it was built."""
    board = board_under_test.open()
    artifact = read_artifact(case.directory)
    _require_fit(board, artifact, case.runtime)
    try:
        run = _run(board, artifact, case)
    except ConnectionFailed as error:
        board_under_test.fail(str(error))
    assert run.is_ok, run.sentence


def _run(board: OpenBoard, artifact: Artifact, case: Case) -> SmokeRun:
    with board.folder(case.name.replace("/", "-")) as path:
        return smoke(
            board.connection,
            path,
            artifact,
            board.facts,
            runtime=case.runtime,
            deadline_s=_DEADLINE_S,
            python=board.device.python,
            environment=board.environment,
            program=board.program(case.runtime),
        )


def _cases(root: Path) -> list[Case]:
    found = sorted(
        root.glob(MANIFEST_NAME) if (root / MANIFEST_NAME).is_file() else root.rglob(MANIFEST_NAME)
    )
    return [
        Case(file.parent, need.runtime)
        for file in found
        for need in read_artifact(file.parent).manifest.requires.any_of
    ]


def _require_fit(board: OpenBoard, artifact: Artifact, runtime: str) -> None:
    """What the board lacks is no failure of the artifact: a skip, with the reason."""
    manifest = artifact.manifest
    if board.device.target not in (None, manifest.target):
        pytest.skip(f"the board is a {board.device.target}")
    names = [file.name for file in manifest.files if file.role is Role.MODEL]
    problems = []
    if manifest.target in target_names():  # a row of a project is not known here
        problems = misfits(
            manifest,
            board.facts,
            load_target(manifest.target),
            model_file=artifact.directory / names[0],
            brought=board.brought,
        )
    if problems:
        pytest.skip("; ".join(str(problem) for problem in problems))
    usable = usable_runtimes(manifest, board.facts, brought=board.brought)
    if runtime not in {found.name for found in usable}:
        pytest.skip(f"the board has no {runtime} that fits")
