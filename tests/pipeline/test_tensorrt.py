"""A kit from the project to the report that comes back, with a stand-in for trtexec."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from edgeship.cli import main

KITS: Final = Path(__file__).parents[1] / "exporters/tensorrt/kit/kits.py"
KIT: Final = "build/jetson-orin-nano/tensorrt-kit"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def kit_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kit") / "project"
    shutil.copytree(project_template, directory)
    file = directory / "edgeship.toml"
    text = file.read_text().replace("raspberry-pi-4", "jetson-orin-nano")
    text = text.replace('formats = ["onnx"]', 'formats = ["tensorrt"]')
    file.write_text(f'{text}[targets.jetson-orin-nano.budget]\nlatency_p95 = "1 s"\n')
    assert main(["build", "-q", "-p", str(file)]) == 0
    return directory


@pytest.fixture
def project(kit_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kit_template, tmp_path / "project", symlinks=True))


def manifest_of(project: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((project / KIT / "manifest.json").read_bytes())
    return value


def test_a_kit_holds_graphs_and_programs_and_claims_no_engine(project: Path) -> None:
    manifest = manifest_of(project)
    roles = {file["name"]: file["role"] for file in manifest["files"]}
    assert roles["fp16.onnx"] == roles["int8.onnx"] == "model"
    assert roles["build_engine.py"] == roles["edgeship-board.pyz"] == "program"
    assert roles["kit.json"] == "program"
    assert "stand_in.onnx" not in roles
    assert not (project / KIT / "stand_in.onnx").exists()
    (evidence,) = manifest["evidence"]
    assert evidence["stand_in"] is True
    assert evidence["rung"] == "exported"
    assert evidence["where"]["runtime"] == "onnxruntime"
    assert evidence["metrics"]["top1"] > 0.9
    assert any("engine not built" in note for note in manifest["notes"])
    assert any("0 findings of the lints" in note for note in manifest["notes"])


def test_a_second_build_has_nothing_to_do(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / KIT / "manifest.json").read_bytes()
    _, value = run_json(capsys, "build", "-p", str(project / "edgeship.toml"))
    assert value["stages_run"] == 0
    assert (project / KIT / "manifest.json").read_bytes() == before


@pytest.fixture(scope="module")
def reported(kit_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of build_engine.py, with a stand-in for trtexec and another root than `/`."""
    directory, kit = tmp_path_factory.mktemp("reported"), kit_template / KIT
    kits = SimpleNamespace(**run_path(str(KITS)))
    machine = kits.write_machine(directory / "machine", kit)
    done = subprocess.run(
        [
            *(sys.executable, str(kit / "build_engine.py"), str(kit)),
            *(f"--cache={directory / 'cache'}", f"--root={machine}", "--duration=1", "--repeats=2"),
        ],
        env={"PATH": f"{machine / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing here is proven of a device" in done.stderr
    assert "p95" not in done.stderr
    value: dict[str, Any] = json.loads(
        Path(json.loads(done.stdout.splitlines()[-1])["report"]).read_text()
    )
    return value


def on_a_device(report: dict[str, Any]) -> dict[str, Any]:
    """What a board with NVIDIA's TensorRT would have written."""
    tensorrt = {**report["tensorrt"], "stand_in": None}
    return {**report, "board": {**report["board"], "emulated": None}, "tensorrt": tensorrt}


def written(report: dict[str, Any], directory: Path) -> str:
    path = directory / "engine_report.json"
    path.write_text(json.dumps(report))
    return str(path)


@pytest.mark.slow
def test_what_a_stand_in_reports_proves_no_engine(
    project: Path, reported: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    report = written(reported, tmp_path)
    assert main(["evidence", "import", report, "-p", file]) == 0
    capsys.readouterr()
    found = [item for item in manifest_of(project)["evidence"] if item["place"] != "host"]
    assert [item["where"]["graph"] for item in found] == ["fp16", "int8"]
    for item in found:
        assert (item["place"], item["rung"], item["stand_in"]) == ("emulated", "exported", True)
        assert "latency" not in item
        assert "is no compiled program" in item["where"]["instead"]
        assert "were read below" in item["where"]["emulated"]
    assert main(["check", "-p", file]) == 0
    story = capsys.readouterr().out
    assert "step 4, device: jetson-orin-nano/tensorrt-kit: not run (an emulated board" in story
    assert "step 3, engine: jetson-orin-nano/tensorrt-kit: not built here" in story


@pytest.mark.slow
def test_what_a_board_reports_becomes_evidence_of_a_device(
    project: Path, reported: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(project / "edgeship.toml")
    _, value = run_json(capsys, "check", "-p", file)
    quantities = {item["quantity"]: item for item in value["artifacts"][0]["judgements"]}
    assert quantities["latency_p95"]["verdict"] == "unmeasured"

    report = on_a_device(reported)
    path = written(report, tmp_path)
    code, value = run_json(capsys, "evidence", "import", path, "-p", file)
    assert code == 0
    assert value["recommended"] == "int8"
    found = [item for item in manifest_of(project)["evidence"] if item["place"] == "device"]
    assert [item["where"]["graph"] for item in found] == ["fp16", "int8"]
    assert {item["where"]["runtime"] for item in found} == {"tensorrt"}
    assert all(item["stand_in"] is False for item in found)
    run_json(capsys, "evidence", "import", path, "-p", file)  # takes the place of the first
    assert len(manifest_of(project)["evidence"]) == 3

    code, value = run_json(
        capsys,
        "evidence",
        "import",
        written({**report, "artifact_id": "0" * 64}, tmp_path),
        "-p",
        file,
    )
    assert code == 9
    assert "another build" in value["problems"][0]["what"]


@pytest.mark.slow
@pytest.mark.parametrize("recommended", ["fp16", "int8"])
def test_the_engine_that_serves_is_judged(
    project: Path,
    reported: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recommended: str,
) -> None:
    file = str(project / "edgeship.toml")
    report = {**on_a_device(reported), "recommended": recommended}
    path = written(report, tmp_path)
    code, value = run_json(capsys, "evidence", "import", path, "-p", file)
    assert code == 0
    latencies = {row["name"]: row["latency"]["p95_ms"] for row in report["graphs"]}
    (judged,) = [item for item in value["judgements"] if item["quantity"] == "latency_p95"]
    assert judged["verdict"] == "pass"
    assert f"{latencies[recommended]:.3g}" in judged["detail"], (judged, latencies)
