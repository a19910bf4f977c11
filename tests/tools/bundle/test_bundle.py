from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeship.artifact import Artifact
from edgeship.budget import Judgement
from edgeship.errors import (
    ConfigurationError,
    EdgeshipError,
    ExitCode,
    IntegrityRefused,
    RequirementMissing,
)
from edgeship.tools.bundle.bundle import bundle
from edgeship.tools.bundle.description import Judged
from edgeship.vocabulary import Role, Verdict

HERE = Path(__file__).parent
made = SimpleNamespace(**run_path(str(HERE / "made.py")))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    made_artifact: Artifact = made.make_artifact(tmp_path / "artifact")
    return made_artifact


def contents(path: Path) -> dict[str, bytes]:
    """Files of a tar below its one directory."""
    with tarfile.open(path) as archive:
        members = [(member.name, archive.extractfile(member)) for member in archive]
        files = {name: file.read() for name, file in members if file is not None}
    assert {name.partition("/")[0] for name in files} == {path.stem}
    return {name.partition("/")[2]: content for name, content in files.items()}


def description(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(contents(path)["bundle.json"])
    return value


def judgement(verdict: Verdict, code: ExitCode) -> Judgement:
    return Judgement(quantity="size", verdict=verdict, detail="size of it", exit_code=code)


def bundle_judged(directory: Path, artifact: Artifact, *judgements: Judgement) -> Path:
    bundled = bundle(
        [Judged(artifact=artifact, judgements=judgements)],
        name="bright",
        target=made.this_machine(),
        destination=directory,
        board_archive=b"board",
    )
    return bundled.path


def test_the_archive_holds_everything_and_its_sums_are_those_of_sha256sum(
    artifact: Artifact, tmp_path: Path
) -> None:
    bundled = made.make_bundle(tmp_path, artifact)
    assert bundled.path.name == f"bright-raspberry-pi-4-{bundled.release}.tar"
    assert bundled.sha256 == hashlib.sha256(bundled.path.read_bytes()).hexdigest()
    own = (
        "SHA256SUMS",
        "README.txt",
        "bundle.json",
        "edgeship-board.pyz",
        "install.sh",
        "release.txt",
    )
    files = [file.name for file in artifact.manifest.files]
    assert set(contents(bundled.path)) == {
        *own,
        *(f"artifacts/onnx-int8/{name}" for name in ["manifest.json", *files]),
    }
    subprocess.run(["tar", "-xf", bundled.path, "-C", tmp_path], check=True)
    unpacked = tmp_path / bundled.path.stem
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=unpacked, check=True)
    lines = (unpacked / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(own) - 1 + 1 + len(files)
    assert f"files {len(lines)}" in (unpacked / "release.txt").read_text().splitlines()


def test_the_same_input_gives_the_same_bytes_whatever_the_time_order_and_owner(
    tmp_path: Path,
) -> None:
    archives = []
    for place in ("one", "other"):
        artifacts = [
            made.make_artifact(tmp_path / place / precision, precision=precision)
            for precision in ("fp32", "int8")
        ]
        if place == "other":
            artifacts.reverse()
            artifacts[0].directory.joinpath("model.onnx").chmod(0o600)
        archives.append(made.make_bundle(tmp_path / place, *artifacts).path)
    one, other = archives
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {
        (0, 0, 0, "")
    }


def test_the_time_is_that_of_source_date_epoch(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with tarfile.open(made.make_bundle(tmp_path, artifact).path) as archive:
        assert {member.mtime for member in archive} == {1700000000}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigurationError, match="SOURCE_DATE_EPOCH"):
        made.make_bundle(tmp_path, artifact)


def test_the_release_follows_what_is_installed_and_not_its_evidence(
    artifact: Artifact, tmp_path: Path
) -> None:
    first = made.make_bundle(tmp_path / "1", artifact)
    remeasured = artifact.with_evidence(())
    assert made.make_bundle(tmp_path / "2", remeasured).release == first.release
    other = made.make_artifact(tmp_path / "other", "ok 2")
    assert made.make_bundle(tmp_path / "3", other).release != first.release
    assert made.make_bundle(tmp_path / "4", artifact, name="dark").release != first.release


@pytest.mark.parametrize(
    ("code", "error"),
    [(ExitCode.ACCURACY, 4), (ExitCode.BUDGET, 5), (ExitCode.MISSING, 8)],
)
def test_an_artifact_that_does_not_pass_is_refused_with_its_own_code(
    artifact: Artifact, tmp_path: Path, code: ExitCode, error: int
) -> None:
    verdict = Verdict.UNMEASURED if code is ExitCode.MISSING else Verdict.FAIL
    with pytest.raises(EdgeshipError, match="size of it") as raised:
        bundle_judged(tmp_path / "out", artifact, judgement(verdict, code))
    assert raised.value.exit_code == error
    assert not (tmp_path / "out").exists()


def test_what_was_not_measured_is_taken_and_told(artifact: Artifact, tmp_path: Path) -> None:
    bare = artifact.with_evidence(())
    path = bundle_judged(tmp_path / "out", bare, judgement(Verdict.UNMEASURED, ExitCode.OK))
    lines = ["artifacts/onnx-int8: size of it", "artifacts/onnx-int8: no evidence"]
    assert description(path)["unmeasured"] == lines
    assert description(path)["artifacts"][0]["verdict"] == "unmeasured"
    readme = contents(path)["README.txt"].decode()
    assert "NOT MEASURED" in readme
    assert all(line in readme for line in lines)


def test_what_was_proven_is_told_with_its_place(artifact: Artifact, tmp_path: Path) -> None:
    path = made.make_bundle(tmp_path, artifact).path
    evidence = description(path)["artifacts"][0]["evidence"]
    assert [(item["rung"], item["place"]) for item in evidence] == [("matches", "emulated")]
    readme = contents(path)["README.txt"].decode()
    assert "on an emulated board" in readme
    assert "NOT MEASURED" not in readme
    for command in ("--check", "--install", "--rollback"):
        assert f"sh install.sh {command}" in readme


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\nb", "a\\b", "a//b"])
def test_a_name_that_leads_out_or_cannot_be_listed_is_refused(
    artifact: Artifact, tmp_path: Path, name: str
) -> None:
    file = replace(artifact.manifest.files[0], name=name)
    manifest = replace(artifact.manifest, files=(*artifact.manifest.files, file))
    with pytest.raises(IntegrityRefused, match="does not suit"):
        made.make_bundle(tmp_path / "out", replace(artifact, manifest=manifest))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["ok 2", "ok 1 and more", "ok", None])
def test_a_file_that_changed_after_the_build_is_refused_and_nothing_is_left(
    artifact: Artifact, tmp_path: Path, content: str | None
) -> None:
    model = artifact.directory / "model.onnx"
    if content is None:
        model.unlink()
    else:
        model.write_text(content)
    with pytest.raises(IntegrityRefused, match=r"model\.onnx: the file is not the one"):
        made.make_bundle(tmp_path / "out", artifact)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_artifact_without_golden_pack_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    files = tuple(file for file in artifact.manifest.files if file.role is not Role.GOLDEN)
    bare = replace(artifact, manifest=replace(artifact.manifest, files=files))
    with pytest.raises(RequirementMissing, match="golden pack"):
        made.make_bundle(tmp_path, bare)


def test_wrong_names_targets_and_doubles_are_told_together(
    artifact: Artifact, tmp_path: Path
) -> None:
    other = replace(artifact, manifest=replace(artifact.manifest, target="raspberry-pi-5"))
    with pytest.raises(ConfigurationError) as raised:
        made.make_bundle(tmp_path, artifact, other, name="../bright")
    assert len(raised.value.problems) == 3
    with pytest.raises(ConfigurationError, match="no artifact"):
        made.make_bundle(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_problem(
    artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        made.make_bundle(tmp_path / "file" / "below", artifact)
