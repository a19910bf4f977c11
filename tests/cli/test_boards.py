"""`test`, `bench`, `bundle` and `doctor --device` on this machine, which stands for a board."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeship.cli import main


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def stood_template(built_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built project with a target that this machine is, built too; stages are shared."""
    import importlib.resources

    directory = tmp_path_factory.mktemp("stood") / "project"
    shutil.copytree(built_template, directory, symlinks=True)
    catalogue = importlib.resources.files("edgeship.targets") / "catalogue"
    row = (catalogue / "raspberry-pi-4.toml").read_text()
    row = row.replace('name = "raspberry-pi-4"', 'name = "here"')
    (directory / "here.toml").write_text(row.replace('arch = "aarch64"', 'arch = "x86_64"'))
    with (directory / "edgeship.toml").open("a") as file:
        file.write('[targets.here]\nfile = "here.toml"\nformats = ["onnx"]\n')
        file.write('[targets.here.budget]\nmemory = "1 GB"\nlatency_p95 = "1 s"\n')
    assert main(["build", "here", "-q", "-p", str(directory / "edgeship.toml")]) == 0
    return directory


@pytest.fixture
def project(stood_template: Path, tmp_path: Path) -> Path:
    directory = Path(shutil.copytree(stood_template, tmp_path / "project", symlinks=True))
    write_devices(directory)
    return directory


def write_devices(directory: Path, environment: str = "{}") -> None:
    runs = directory / "runs"
    runs.mkdir(exist_ok=True)
    (directory / "devices.toml").write_text(
        f'[devices.desk]\ntransport = "local"\npython = "{sys.executable}"\n'
        f'directory = "{runs}"\nenvironment = {environment}\n'
    )


def evidence_of(project: Path, command: str) -> list[Any]:
    manifest = json.loads((project / "build/here/onnx-int8/manifest.json").read_bytes())
    return [item for item in manifest["evidence"] if item["command"] == command]


@pytest.mark.slow
def test_what_a_board_says_becomes_evidence_and_is_judged(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    before = json.loads((project / "build/here/onnx-int8/manifest.json").read_bytes())
    arguments = ("test", "here", "--device", "desk", "--samples", "16", "-p", file)
    run_json(capsys, *arguments)
    code, value = run_json(capsys, *arguments)  # takes the place of the first
    assert code == 0, value
    (trial,) = value["trials"]
    assert trial["outcome"] == "ok"
    assert all(case["is_ok"] is not False for case in trial["cases"])
    (evidence,) = evidence_of(project, "edgeship test")
    assert evidence["place"] == "device"
    assert evidence["rung"] == "matches"
    assert evidence["where"]["device"] == "desk"
    assert evidence["where"]["runtime"] == "onnxruntime"
    assert evidence["samples"] == 16
    assert evidence["metrics"]["cosine_mean"] > 0.99
    assert evidence["memory"]["peak_bytes"] > evidence["memory"]["imported_bytes"] > 0
    after = json.loads((project / "build/here/onnx-int8/manifest.json").read_bytes())
    assert after["artifact_id"] == before["artifact_id"]
    _, checked = run_json(capsys, "check", "here", "-p", file)
    verdicts = {item["quantity"]: item for item in checked["artifacts"][0]["judgements"]}
    assert verdicts["memory"]["verdict"] == "pass"
    assert "desk" in verdicts["memory"]["detail"]
    assert verdicts["latency_p95"]["verdict"] == "unmeasured"
    assert list((project / "runs").iterdir()) == []


@pytest.mark.slow
def test_the_artifact_gives_the_same_for_a_sample_here_and_on_the_board(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 40 samples: then the board's shares are those of the host."""
    file = str(project / "edgeship.toml")
    run_json(capsys, "test", "here", "--device", "desk", "--samples", "40", "-p", file)
    (board,) = evidence_of(project, "edgeship test")
    (host,) = evidence_of(project, "edgeship build")
    assert board["samples"] == host["samples"] == 40
    assert board["metrics"] == pytest.approx(host["metrics"])
    assert board["worst_class"] == host["worst_class"]
    assert board["data_sha256"] == host["data_sha256"]


@pytest.mark.slow
def test_a_crash_on_the_board_fails_the_artifact_until_it_passes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    fake = tmp_path / "fake/onnxruntime"
    fake.mkdir(parents=True)
    write_devices(project, environment=f'{{ PYTHONPATH = "{fake.parent}" }}')
    arguments = ("test", "here", "--device", "desk", "--samples", "0", "-p", file)
    # the probe finds a runtime, which dies when a model is opened
    (fake / "__init__.py").write_text(
        "__version__ = '1.31.1'\nimport os, signal\n"
        "class SessionOptions:\n"
        "    def __init__(self): os.kill(os.getpid(), signal.SIGILL)\n"
    )
    code, value = run_json(capsys, *arguments)
    (trial,) = value["trials"]
    assert trial["outcome"] == "illegal-instruction", trial["sentence"]
    assert code == 6
    (evidence,) = evidence_of(project, "edgeship test")
    assert evidence["failure"]["outcome"] == "illegal-instruction"
    assert evidence["rung"] == "exported"
    assert main(["check", "here", "-q", "-p", file]) == 6
    bundle = ["bundle", "here", "--as", "tar", "--out", str(tmp_path), "-q", "-p", file]
    assert main(bundle) != 0
    assert not list(tmp_path.glob("*.tar"))
    write_devices(project)
    capsys.readouterr()
    code, _ = run_json(capsys, *arguments)
    assert code == 0
    assert main(["check", "here", "-q", "-p", file]) == 0
    assert main(bundle) == 0
    (archive,) = tmp_path.glob("*.tar")
    assert main(["verify", str(archive)]) == 0
    archive.write_bytes(archive.read_bytes()[:-30000])
    assert main(["verify", str(archive)]) == 9


@pytest.mark.slow
def test_another_machine_is_refused_before_anything_is_copied(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    arguments = ("test", "raspberry-pi-4", "--device", "desk", "--samples", "4", "-p", file)
    code, value = run_json(capsys, *arguments)
    assert code == 9
    assert value["trials"][0]["runtime"] is None
    assert "not of this target" in value["problems"][0]["what"]
    code, value = run_json(capsys, *arguments, "--force")
    (trial,) = value["trials"]
    assert trial["outcome"] == "ok"
    assert any("not kept as evidence" in note for note in trial["notes"])
    manifest = json.loads((project / "build/raspberry-pi-4/onnx-int8/manifest.json").read_bytes())
    assert {item["command"] for item in manifest["evidence"]} == {"edgeship build"}


def test_a_board_that_was_never_built_for_is_told_before_it_is_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "build/here")
    file = str(project / "edgeship.toml")
    code, value = run_json(capsys, "test", "here", "--device", "desk", "-p", file)
    assert code == 8
    assert value["problems"][0]["what"] == "it was never built"


def test_unknown_artifacts_are_told_with_those_that_there_are(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    code, value = run_json(capsys, "test", "here", "--only", "onnx-int4", "-p", file)
    assert code == 2
    assert "onnx-int8" in value["problems"][0]["remedy"]


@pytest.mark.slow
def test_a_board_is_examined_and_the_probe_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    code, value = run_json(capsys, "doctor", "--device", "desk", "-p", file)
    assert code == 0
    assert value["place"] == "device"
    kept = json.loads((project / ".edgeship/probes/desk.json").read_bytes())
    assert kept["python"] == value["facts"]["python"] == sys.version.split()[0]
