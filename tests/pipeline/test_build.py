from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeship.artifact import read_artifact
from edgeship.errors import ConfigurationError, ExitCode, IntegrityRefused, RequirementMissing
from edgeship.pipeline.build import BuildResult, build
from edgeship.pipeline.check import check
from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project
from edgeship.runtimes.protocol import installed_version
from edgeship.story import Silence
from edgeship.vocabulary import Metric, Place, Role, Rung, Verdict


def build_project(directory: Path) -> BuildResult:
    return build(make_plan(read_project(directory / "edgeship.toml")), Silence())


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def run_python(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def artifact_bytes(directory: Path) -> dict[str, bytes]:
    """Every file of an artifact by name; of the manifest everything but the evidence."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(content)
                del manifest["evidence"]
                content = json.dumps(manifest).encode()
            found[path.relative_to(directory).as_posix()] = content
    return found


def test_int8_and_its_fp32_companion_are_built_and_match_the_float_model(built: Path) -> None:
    for precision in ("int8", "fp32"):
        manifest = read_artifact(built / f"build/raspberry-pi-4/onnx-{precision}").manifest
        (evidence,) = manifest.evidence
        assert evidence.rung is Rung.MATCHES
        assert evidence.place is Place.HOST
        assert not evidence.stand_in
        assert evidence.samples == 40
        assert evidence.metrics[Metric.REFERENCE_TOP1] == 1.0
        assert evidence.metrics[Metric.AGREEMENT] >= 0.95


def test_the_manifest_says_where_everything_came_from(built: Path) -> None:
    value = json.loads((built / "build/raspberry-pi-4/onnx-int8/manifest.json").read_text())
    assert value["schema"] == 1
    assert set(value["source"]) == {
        "checkpoint_sha256",
        "lowered_sha256",
        "statistics_sha256",
        "recipe",
    }
    assert value["tools"]["torch"].startswith("2.13")
    (image,) = value["contract"]["inputs"]
    assert (image["name"], image["layout"], image["dtype"]) == ("image", "NCHW", "float32")
    assert image["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    (logits,) = value["contract"]["outputs"]
    assert (logits["name"], logits["labels"]) == ("logits", "labels.txt")
    assert value["requires"]["any_of"] == [{"runtime": "onnxruntime", "min": "1.14"}]
    assert str(built) not in json.dumps(value)


def test_every_file_of_an_artifact_is_in_its_manifest(built: Path) -> None:
    directory = built / "build/raspberry-pi-4/onnx-int8"
    artifact = read_artifact(directory)
    listed = {file.name for file in artifact.manifest.files}
    on_disk = {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }
    assert on_disk == listed | {"manifest.json"}
    assert {file.role for file in artifact.manifest.files} == {Role.MODEL, Role.LABELS, Role.GOLDEN}
    assert not artifact.damaged_files()


def test_a_second_build_does_no_work_and_changes_no_byte(built: Path) -> None:
    directory = built / "build/raspberry-pi-4/onnx-int8"
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert build_project(built).stages_run == 0
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_a_full_hit_imports_no_vendor_package(built: Path) -> None:
    script = (
        "import sys; from edgeship.cli import main\n"
        "assert main(['build', '-q', '-p', sys.argv[1]]) == 0\n"
        "print('modules:', *{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = run_python(script, str(built / "edgeship.toml")).split("modules:")[-1].split()
    assert not {"torch", "onnx", "onnxruntime", "onnxscript", "safetensors"} & set(loaded)


@pytest.mark.slow
def test_changing_one_line_of_the_model_rebuilds(built: Path) -> None:
    old = read_artifact(built / "build/raspberry-pi-4/onnx-fp32").manifest
    edit(built / "model.py", "x.mean((2, 3))", "x.amax((2, 3))")
    result = build_project(built)
    assert result.stages_run > 0
    new = read_artifact(built / "build/raspberry-pi-4/onnx-fp32").manifest
    assert new.artifact_id != old.artifact_id
    assert new.source["lowered_sha256"] != old.source["lowered_sha256"]


@pytest.mark.slow
def test_a_changed_module_that_the_factory_imports_rebuilds(project: Path) -> None:
    edit(project / "model.py", "from torch import nn", "from torch import nn\nimport widths")
    (project / "widths.py").write_text("SCALE = 1\n")
    build_project(project)
    assert build_project(project).stages_run == 0
    (project / "widths.py").write_text("SCALE = 2\n")
    assert build_project(project).stages_run > 0


@pytest.mark.slow
def test_a_module_that_is_imported_when_the_factory_is_called_rebuilds(project: Path) -> None:
    edit(project / "model.py", "    return Net", "    import widths\n\n    return Net")
    (project / "widths.py").write_text("SCALE = 1\n")
    build_project(project)
    assert build_project(project).stages_run == 0
    (project / "widths.py").write_text("SCALE = 2\n")
    assert build_project(project).stages_run > 0


@pytest.mark.slow
def test_a_factory_outside_of_the_project_rebuilds(project: Path, tmp_path: Path) -> None:
    outside = (project / "model.py").rename(tmp_path / "model.py")
    edit(project / "edgeship.toml", "model.py:build", "../model.py:build")
    build_project(project)
    assert build_project(project).stages_run == 0
    edit(outside, "x.mean((2, 3))", "x.amax((2, 3))")
    assert build_project(project).stages_run > 0


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("samples = 24", "samples = 12", {"observe", "emit", "golden", "evaluate"}),
        ("std = [0.25, 0.25, 0.25]", "std = [0.5, 0.5, 0.5]", None),
        ('formats = ["onnx"]', 'formats = ["onnx"]\nonnx.ranges = "percentile:99"', {"emit"}),
        ('metric = "top1"', 'metric = "agreement"', {"evaluate"}),
    ],
)
def test_a_change_runs_the_stages_that_depend_on_it(
    built: Path, old: str, new: str, stages: set[str] | None
) -> None:
    from edgeship.pipeline.status import plan_status

    edit(built / "edgeship.toml", old, new)
    plan = make_plan(read_project(built / "edgeship.toml"))
    (missing,) = [
        set(status.missing)
        for item, status in zip(plan.artifacts, plan_status(plan), strict=True)
        if item.is_calibrated
    ]
    if stages is None:
        assert "lower" in missing
    else:
        assert stages <= missing
        assert "lower" not in missing


def test_a_changed_budget_runs_nothing(built: Path) -> None:
    with (built / "edgeship.toml").open("a") as file:
        file.write('[targets.raspberry-pi-4.budget]\nsize = "1 kB"\n')
    result = build_project(built)
    assert result.stages_run == 0
    codes = {str(outcome.item.recipe.precision): outcome.exit_codes for outcome in result.outcomes}
    assert ExitCode.BUDGET in codes["int8"]
    assert set(codes["fp32"]) == {ExitCode.OK}


def test_targets_with_equal_facts_share_their_stages(built: Path) -> None:
    with (built / "edgeship.toml").open("a") as file:
        file.write('[targets.cortex-a53]\nformats = ["onnx"]\n')
    assert build_project(built).stages_run == 0
    one, other = (
        artifact_bytes(built / f"build/{name}/onnx-int8")
        for name in ("raspberry-pi-4", "cortex-a53")
    )
    assert one["model.onnx"] == other["model.onnx"]


def test_evidence_survives_a_rebuild_of_the_same_artifact(built: Path) -> None:
    directory = built / "build/raspberry-pi-4/onnx-int8"
    artifact = read_artifact(directory)
    (own,) = artifact.manifest.evidence
    from dataclasses import replace

    foreign = replace(own, place=Place.DEVICE, command="edgeship test")
    artifact.with_evidence((foreign, own))
    build_project(built)
    assert read_artifact(directory).manifest.evidence == (foreign, own)
    (directory / "model.onnx").write_bytes(b"damaged")
    build_project(built)
    again = read_artifact(directory)
    assert not again.damaged_files()
    assert foreign in again.manifest.evidence


def test_evidence_of_another_artifact_is_dropped(built: Path) -> None:
    directory = built / "build/raspberry-pi-4/onnx-int8"
    edit(built / "edgeship.toml", "samples = 24", "samples = 6")
    before = read_artifact(directory).manifest
    build_project(built)
    after = read_artifact(directory).manifest
    assert after.artifact_id != before.artifact_id
    assert len(after.evidence) == 1


def test_an_artifact_that_fails_its_gate_is_kept_and_marked(
    built: Path, unfit_calibration: str
) -> None:
    edit(built / "edgeship.toml", 'data = "calib"', f'data = "{unfit_calibration}"')
    result = build_project(built)
    (int8,) = [item for item in result.outcomes if item.item.is_calibrated]
    assert int8.artifact is not None
    assert ExitCode.ACCURACY in int8.exit_codes
    assert any(judgement.verdict is Verdict.FAIL for judgement in int8.judgements)
    (evidence,) = int8.artifact.manifest.evidence
    assert evidence.rung is Rung.RUNS


def test_one_refused_artifact_does_not_keep_the_others_from_being_made(project: Path) -> None:
    edit(
        project / "edgeship.toml",
        'formats = ["onnx"]',
        'formats = ["onnx"]\nonnx.rules = [{match = "nowhere.*", precision = "fp32"}]',
    )
    int8, fp32 = build_project(project).outcomes
    assert isinstance(int8.error, ConfigurationError)
    assert "nowhere.*" in str(int8.error)
    assert fp32.artifact is not None
    assert not (project / "build/raspberry-pi-4/onnx-int8").exists()


def test_a_directory_that_edgeship_did_not_make_is_never_replaced(project: Path) -> None:
    mine = project / "build/raspberry-pi-4/onnx-int8"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    int8, _ = build_project(project).outcomes
    assert isinstance(int8.error, ConfigurationError)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_bad_sample_is_named_and_leaves_the_old_artifact(built: Path) -> None:
    before = artifact_bytes(built / "build/raspberry-pi-4/onnx-int8")
    (built / "calib/dark/zzz.png").write_bytes(b"no image")
    int8, _ = build_project(built).outcomes
    assert isinstance(int8.error, ConfigurationError)
    assert "zzz.png" in str(int8.error)
    assert artifact_bytes(built / "build/raspberry-pi-4/onnx-int8") == before


def test_bad_samples_are_left_out_and_said_when_that_is_asked_for(built: Path) -> None:
    (built / "calib/dark/zzz.png").write_bytes(b"no image")
    (built / "test/dark/zzz.png").write_bytes(b"no image")
    plan = make_plan(read_project(built / "edgeship.toml"))
    int8, _ = build(plan, Silence(), skips_bad=True).outcomes
    assert int8.artifact is not None
    (note,) = [note for note in int8.artifact.manifest.notes if "zzz.png" in note]
    assert "calib/dark/zzz.png (the image cannot be decoded)" in note
    assert "test/dark/zzz.png" in note
    assert int8.artifact.manifest.evidence[-1].samples == 40


def test_labels_of_another_count_are_refused(built: Path) -> None:
    (built / "labels.txt").write_text("bright\n")
    outcome = build_project(built).outcomes[0]
    assert isinstance(outcome.error, ConfigurationError)
    assert "2 lines" in str(outcome.error)


def test_without_evaluation_data_an_artifact_runs_and_is_unmeasured(project: Path) -> None:
    edit(project / "edgeship.toml", '[evaluation]\ndata = "test"\nmetric = "top1"\n', "")
    int8, _ = build_project(project).outcomes
    assert int8.artifact is not None
    (evidence,) = int8.artifact.manifest.evidence
    assert evidence.rung is Rung.RUNS
    assert not evidence.metrics
    assert {judgement.verdict for judgement in int8.judgements} == {Verdict.UNMEASURED}


def test_a_missing_extra_names_the_command_to_install_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgeship.pipeline.health.installed_version",
        lambda name: None if name == "onnxruntime" else installed_version(name),
    )
    outcome = build_project(project).outcomes[0]
    assert isinstance(outcome.error, RequirementMissing)
    assert "pip install 'edgeship[onnx]'" in str(outcome.error)
    assert outcome.error.exit_code is ExitCode.MISSING


class TestCheck:
    def outcome(self, directory: Path) -> Any:  # noqa: ANN401 - an Outcome or its parts
        return check(make_plan(read_project(directory / "edgeship.toml")))[0]

    def test_passes_what_was_built(self, built: Path) -> None:
        assert set(self.outcome(built).exit_codes) == {ExitCode.OK}

    def test_says_what_was_never_built(self, project: Path) -> None:
        assert isinstance(self.outcome(project).error, RequirementMissing)

    def test_refuses_changed_bytes(self, built: Path) -> None:
        model = built / "build/raspberry-pi-4/onnx-int8/model.onnx"
        content = bytearray(model.read_bytes())
        content[100] ^= 1
        model.write_bytes(content)
        error = self.outcome(built).error
        assert isinstance(error, IntegrityRefused)
        assert "model.onnx" in str(error)

    def test_refuses_another_checkpoint(self, built: Path) -> None:
        with (built / "bright.safetensors").open("ab") as file:
            file.write(b" ")
        assert "checkpoint" in str(self.outcome(built).error)

    def test_refuses_changed_model_code(self, built: Path) -> None:
        edit(built / "model.py", "import nn", "import nn  # noqa")
        assert "code" in str(self.outcome(built).error)

    def test_refuses_evidence_of_other_data(self, built: Path) -> None:
        shutil.copy(built / "test/dark/001.png", built / "test/dark/999.png")
        assert "evaluation data" in str(self.outcome(built).error)

    def test_writes_nothing(self, built: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
        self.outcome(built)
        assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
