from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeship.cli import main


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def file(built: Path) -> str:
    return str(built / "edgeship.toml")


def test_build_prints_a_row_for_each_artifact(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "-p", file]) == 0
    out = capsys.readouterr().out
    assert "raspberry-pi-4  onnx-int8" in out
    assert "matches on host" in out
    assert "everything was up to date" in out


def test_json_of_build_and_check_agree(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, built = run_json(capsys, "build", "-p", file)
    assert code == built["exit_code"] == 0
    _, checked = run_json(capsys, "check", "-p", file)
    assert checked["artifacts"] == built["artifacts"]
    assert built["artifacts"][0]["evidence"][0]["metrics"]["top1"] > 0.9


def test_plan_shows_the_stages_that_would_run(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, value = run_json(capsys, "plan", "-p", file)
    assert [item["stages_to_run"] for item in value["artifacts"]] == [[], []]
    Path(file).with_name("model.py").write_text("import torch\n")
    _, value = run_json(capsys, "plan", "-p", file)
    assert "lower" in value["artifacts"][0]["stages_to_run"]


def test_plan_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(project.rglob("*"))
    assert main(["plan", "-p", str(project / "edgeship.toml")]) == 0
    assert sorted(project.rglob("*")) == before
    assert "equalize, lower, observe, audit, emit" in capsys.readouterr().out


def test_targets_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    _, value = run_json(capsys, "targets")
    assert len(value["targets"]) == 8
    assert main(["targets", "jetson-orin-nano"]) == 0
    assert "Orin Nano" in capsys.readouterr().out


def test_an_error_says_what_where_expected_found_and_what_to_do(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(file)
    path.write_text(path.read_text().replace("samples = 24", "samples = 0"))
    assert main(["build", "-p", file]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: the number is too small\n"
        "  where:    edgeship.toml: calibration.samples\n"
        "  expected: at least 1\n"
        "  found:    0\n"
        "  do:       raise it\n"
        "exit 2: configuration\n"
    )


def test_errors_are_in_the_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, "build", "-p", str(tmp_path / "none.toml"))
    assert code == value["exit_code"] == 2
    assert value["problems"][0]["what"] == "the file cannot be read"


def test_the_lowest_failing_class_wins_and_the_json_lists_all(
    file: str, unfit_calibration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(file)
    text = path.read_text().replace('data = "calib"', f'data = "{unfit_calibration}"')
    path.write_text(
        text + '[targets.raspberry-pi-4.budget]\nsize = "1 kB"\nlatency_p95 = "1 ms"\n'
        'evidence = "device"\n'
    )
    code, value = run_json(capsys, "build", "-q", "-p", file)
    assert code == 4
    assert value["exit_codes"] == [4, 5, 8]


def test_an_interrupt_exits_130(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeship.cli.projects.read_project", interrupt)
    assert main(["build", "-p", file]) == 130


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["biuld"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["build"], ["check"], ["plan"], ["targets"]])
def test_help_exits_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "edgeship" in capsys.readouterr().out
