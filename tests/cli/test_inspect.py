from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeship.cli import main


def test_inspect_says_what_a_checkpoint_holds(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(project / "bright.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "4 kinds" not in out
    assert "conv2.weight" in out
    assert "raspberry-pi-4" in out


def test_inspect_compares_with_a_teacher_in_json(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "bright.safetensors")
    assert main(["inspect", file, "--teacher", file, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["command"] == "inspect"
    assert value["lineage"] is not None
    assert {item["target"] for item in value["destinations"]} >= {"raspberry-pi-5"}


def test_inspect_of_nothing_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors" in capsys.readouterr().err
