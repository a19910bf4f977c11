from __future__ import annotations

from pathlib import Path

import pytest

from edgeship.device_tests.devices import Device
from edgeship.device_tests.open_board import OpenBoard
from edgeship.device_tests.transports.local import LocalConnection
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.errors import EdgeshipError, IntegrityRefused, Problem, RequirementMissing
from edgeship.targets.board_facts import BoardFacts, FoundRuntime

PROBLEM = Problem(where="a test", what="it is over", remedy="none")


@pytest.fixture
def board(tmp_path: Path) -> OpenBoard:
    return OpenBoard(
        device=Device(name="here"),
        connection=LocalConnection(),
        directory=str(tmp_path),
        facts=BoardFacts(at=""),
        archive=b"",
    )


def test_a_folder_is_gone_with_what_is_in_it(board: OpenBoard, tmp_path: Path) -> None:
    with board.folder("onnx-int8") as path:
        assert Path(path) == tmp_path / "onnx-int8"
        Path(path, "model.onnx").write_bytes(b"model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_gone_after_an_error(board: OpenBoard, tmp_path: Path) -> None:
    with pytest.raises(IntegrityRefused), board.folder("a"):
        raise IntegrityRefused(PROBLEM)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_connection_is_not_used_to_tidy(board: OpenBoard, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed), board.folder("a"):
        raise ConnectionFailed(PROBLEM)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_made_says_why(board: OpenBoard, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(RequirementMissing, match="File exists") as caught, board.folder("a"):
        pass
    assert not isinstance(caught.value, ConnectionFailed)
    assert isinstance(caught.value, EdgeshipError)


def test_what_came_along_goes_before_what_is_there(tmp_path: Path) -> None:
    there = FoundRuntime(name="llama.cpp", version="1", kind="program", path="/usr/bin/llama")
    brought = FoundRuntime(name="llama.cpp", version=None, kind="program", path="/run/llama")
    board = OpenBoard(
        device=Device(name="here"),
        connection=LocalConnection(),
        directory=str(tmp_path),
        facts=BoardFacts(at="", runtimes=(there,)),
        archive=b"",
        brought=(brought,),
    )
    assert board.program("llama.cpp") == "/run/llama"
    assert board.program("onnxruntime") is None
