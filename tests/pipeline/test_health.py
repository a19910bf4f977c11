from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeship.cli import main
from edgeship.pipeline.health import examine_machine, forecast_build
from edgeship.project_file import read_project
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE, installed_version
from edgeship.vocabulary import Format


def test_every_format_is_listed_with_its_state(tmp_path: Path) -> None:
    health = examine_machine(tmp_path)
    assert [item.format for item in health.formats] == list(Format)
    onnx = health.formats[0]
    assert onnx.is_made
    assert onnx.command is None
    assert onnx.versions["torch"].startswith("2.13")


def test_the_forecast_grows_with_the_checkpoint(project: Path) -> None:
    small = forecast_build(read_project(project / "edgeship.toml"))
    with (project / "bright.safetensors").open("ab") as file:
        file.truncate(100_000_000)
    large = forecast_build(read_project(project / "edgeship.toml"))
    assert large.memory_bytes - small.memory_bytes == pytest.approx(8e8, rel=0.01)
    assert large.disk_bytes > 3.5e8


def test_doctor_of_a_project_that_lacks_a_package_exits_8(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "edgeship.pipeline.health.installed_version",
        lambda name: None if name == "onnxscript" else installed_version(name),
    )
    assert main(["doctor", "-p", str(project / "edgeship.toml")]) == 8
    out = capsys.readouterr().out
    assert "packages missing" in out
    assert "pip install 'edgeship[onnx]'" in out


def test_doctor_without_a_project_says_what_the_machine_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "-p", str(tmp_path / "edgeship.toml")]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["forecast"] is None
    assert value["cores"] >= 1


def test_doctor_says_which_runtimes_are_here_and_how_to_get_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TFLITE_RUNTIME_VARIABLE, str(tmp_path / "no-python"))
    assert main(["doctor", "-p", str(tmp_path / "edgeship.toml")]) == 0
    out = capsys.readouterr().out
    assert "artifacts are measured in onnxruntime 1.31" in out
    assert "nothing can be measured in tflite_runtime here" in out
    assert TFLITE_RUNTIME_VARIABLE in out
