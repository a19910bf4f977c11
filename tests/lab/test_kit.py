"""A TensorRT kit on an emulated board that says it is a Jetson, with a stand-in for trtexec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from edgeship.artifact import read_artifact
from edgeship.cli import main
from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.image import LabImage
from edgeship.vocabulary import Place, Rung, Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Run = Callable[..., tuple[int, Any]]

HERE: Final = Path(__file__).parent
on_board = SimpleNamespace(**run_path(str(HERE / "bundle_board.py")))
jetsons = SimpleNamespace(**run_path(str(HERE / "jetson.py")))
TARGET: Final = "jetson-orin-nano"
ARTIFACT: Final = "tensorrt-kit"
PREFIX: Final = "/opt/edgeship/bright"
ENGINE: Final = f"{PREFIX}/current/artifacts/{ARTIFACT}/engine"
MIB: Final = 1 << 20
KILLED: Final = """\
mkfifo story
python3 {kit}/build_engine.py {kit} --cache {cache} --rebuild >said 2>story &
while read -r line; do case $line in *building*) break ;; esac; done <story
kill -KILL $!
wait $!; [ $? -eq 137 ] || exit 1
while pgrep -x trtexec; do :; done
rm story said
"""
"""A builder that dies takes its trtexec with it, or the last loop would outlast the deadline."""


@pytest.fixture(scope="module")
def template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kit") / "project"
    shutil.copytree(project_template, directory)
    file = directory / "edgeship.toml"
    text = file.read_text().replace("raspberry-pi-4", TARGET)
    text = text.replace('formats = ["onnx"]', 'formats = ["tensorrt"]')
    file.write_text(f'{text}[targets.{TARGET}.budget]\nlatency_p95 = "1 s"\n')
    assert main(["build", "-q", "-p", str(file)]) == 0
    return directory


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A project with a kit, built; a fresh copy."""
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


def kit_of(project: Path) -> Path:
    return project / "build" / TARGET / ARTIFACT


def imported(project: Path, report: bytes, edgeship: Run) -> list[Any]:
    """Evidence of the kit after `edgeship evidence import`, but for the host's."""
    file = project / "engine_report.json"
    file.write_bytes(report)
    code, value = edgeship("evidence", "import", str(file), "-p", str(project / "edgeship.toml"))
    assert code == 0, value
    (latency,) = [item for item in value["judgements"] if item["quantity"] == "latency_p95"]
    assert latency["verdict"] == Verdict.UNMEASURED
    evidence = read_artifact(kit_of(project)).manifest.evidence
    return [item for item in evidence if item.place is not Place.HOST]


def test_a_kit_is_built_and_compared_and_its_report_proves_no_device(
    lab: LabImage, project: Path, tmp_path: Path, edgeship: Run
) -> None:
    with jetsons.started(lab, lab_board("raspberry-pi-4"), kit_of(project), tmp_path) as jetson:
        checked = jetson.build("--check")
        assert checked.status == 0, checked
        assert [one["state"] for one in checked.events if one["event"] == "engine"] == [
            "not built",
            "not built",
        ]
        assert jetson.user.shell(f"ls {jetsons.CACHE}").status != 0
        done = jetson.build("--repeats=2")
        assert done.status == 0, done
        assert done.end["recommended"] == "int8"
        assert "the golden pack" in done.story
        assert "no latency: it is an emulated board of edgeship's lab" in done.story
        assert "p95" not in done.story
        content = jetson.user.connection.read(done.end["report"], deadline_s=30)
        again = jetson.build("--no-bench")
        assert "building" not in again.story

    report = json.loads(content)
    assert report["board"]["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert report["tensorrt"]["sm"] == "8.7"
    assert [row["comparison"]["failed"] for row in report["graphs"]] == [0, 0]
    found = imported(project, content, edgeship)
    assert [item.where["graph"] for item in found] == ["fp16", "int8"]
    for item in found:
        assert (item.place, item.rung, item.stand_in) == (Place.EMULATED, Rung.EXPORTED, True)
        assert item.latency is None

    # Had NVIDIA's own trtexec run there, the board would be no more of a device for it.
    compiled = {**report, "tensorrt": {**report["tensorrt"], "stand_in": None}}
    for item in imported(project, json.dumps(compiled).encode(), edgeship):
        assert (item.place, item.latency) == (Place.EMULATED, None)


def test_what_fails_is_named_and_the_old_engines_serve(
    lab: LabImage, project: Path, tmp_path: Path
) -> None:
    with jetsons.started(lab, lab_board("raspberry-pi-4"), kit_of(project), tmp_path) as jetson:
        first = jetson.build("--repeats=1")
        assert first.status == 0, first
        before = jetson.engines()
        for fail, outcome in (
            ("out of memory", "out-of-memory"),
            ("killed", "killed"),
            ("wrong", "mismatch"),
        ):
            jetson.has_trtexec(fail={"int8": fail})
            done = jetson.build("--rebuild", "--only=int8", "--no-bench")
            assert (done.status, done.end["outcome"]) == (6, outcome), done
            assert jetson.engines() == before
        jetson.has_trtexec("10.13.3")
        done = jetson.build()
        assert (done.status, done.end["outcome"]) == (9, "incompatible"), done
        assert "TensorRT 10.3.x, and here is 10.13.3" in done.end["message"]
        jetson.has_trtexec(fail={"fp16": "hang"})
        killed = jetson.user.shell(KILLED.format(kit=jetsons.UPLOADED, cache=jetsons.CACHE))
        assert killed.status == 0, killed
        assert jetson.engines() == before
        jetson.has_trtexec()
        checked = jetson.build("--check")
        assert checked.status == 0, checked
        assert checked.end["recommended"] is None  # the last run that ended chose none
        served = jetson.build("--reuse", "--repeats=1")
        assert (served.status, served.end["recommended"]) == (0, "int8"), served
        assert jetson.engines() == before


def test_a_build_that_the_kernel_kills_is_out_of_memory(
    lab: LabImage, project: Path, tmp_path: Path
) -> None:
    board = replace(lab_board("raspberry-pi-4"), memory_bytes=384 * MIB)
    with jetsons.started(lab, board, kit_of(project), tmp_path) as jetson:
        jetson.has_trtexec(fail={"int8": "hog"})
        done = jetson.build("--no-bench")
    assert (done.status, done.end["outcome"]) == (6, "out-of-memory"), done
    assert "the kernel killed it for want of memory" in done.end["message"]
    assert done.end["recommended"] == "fp16"


def test_a_bundle_builds_its_engines_before_it_is_current(
    lab: LabImage, project: Path, tmp_path: Path
) -> None:
    paths = [
        on_board.bundle_of(project, tmp_path / "first", target=TARGET),
        on_board.changed_bundle(project, tmp_path / "second", note="other", of=(TARGET, ARTIFACT)),
    ]
    first, second = (on_board.release_of(path) for path in paths)
    with jetsons.started(lab, lab_board("raspberry-pi-4"), kit_of(project), tmp_path) as jetson:
        site = jetson.root
        one, other = (site.unpack(path, "/root/uploads") for path in paths)

        jetson.has_trtexec("10.13.3")
        refused = site.shell(f"sh {one}/install.sh --install")
        assert refused.status == 9, refused
        assert "TensorRT 10.3.x, and here is 10.13.3" in refused.stderr
        jetson.has_trtexec()
        checked = site.shell(f"sh {one}/install.sh --check")
        assert checked.status == 0, checked
        assert site.current(PREFIX) is None

        done = site.shell(f"sh {one}/install.sh --install")
        assert done.status == 0, done
        assert site.current(PREFIX) == first
        engine = site.shell(f"readlink -f {ENGINE}").stdout
        assert "/engines/" in engine
        assert "int8-" in engine

        jetson.has_trtexec(fail={"fp16": "killed"})
        failed = site.shell(f"sh {other}/install.sh --install")
        assert failed.status == 6, failed
        assert f"current stays {first}" in failed.stderr
        assert site.current(PREFIX) == first
        assert site.shell(f"readlink -f {ENGINE}").stdout == engine

        jetson.has_trtexec()
        done = site.shell(f"sh {other}/install.sh --install")
        assert done.status == 0, done
        assert site.current(PREFIX) == second
        assert site.shell(f"readlink -f {ENGINE}").stdout != engine
        back = site.shell(f"sh {PREFIX}/current/install.sh --rollback")
        assert back.status == 0, back
        assert "building" not in back.stderr
        assert site.current(PREFIX) == first
        assert site.shell(f"readlink -f {ENGINE}").stdout == engine
