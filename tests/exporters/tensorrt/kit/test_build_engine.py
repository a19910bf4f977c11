# ruff: noqa: ANN401 - vendor modules and JSON have no types
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, kits: SimpleNamespace) -> Path:
    path: Path = kits.write_kit(tmp_path_factory.mktemp("kits") / "kit")
    return path


def report_of(done: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(done.end["report"]).read_text())
    return value


def engines(tmp_path: Path) -> dict[str, bytes]:
    """Everything that serves."""
    found = {}
    for path in sorted((tmp_path / "cache").glob("*/*.json")):
        if path.name != "engine_report.json":
            found[path.name] = path.read_bytes()
            found[path.name + ".plan"] = (
                path.parent / json.loads(found[path.name])["file"]
            ).read_bytes()
    return found


def test_a_kit_becomes_engines_that_are_compared_and_measured(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit)
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    done = build(kit, machine, "--repeats=2")
    assert done.status == 0, done.story
    assert done.end["recommended"] == "int8"
    report = report_of(done)
    assert [row["outcome"] for row in report["graphs"]] == ["ok", "ok"]
    assert report["tensorrt"]["way"] == "trtexec"
    assert report["settings"]["has_transfers"] is True
    fp16, int8 = report["graphs"]
    assert (fp16["comparison"]["judged"], int8["comparison"]["judged"]) == (2, 4)
    assert fp16["latency"]["queries"] == 400
    assert fp16["latency"]["p50_ms"] == pytest.approx(2.1006)
    assert len(int8["round_p50_ms"]) == 2
    assert int8["engine"]["workspace_mib"] == 1024
    assert before == {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}

    again = build(kit, machine, "--no-bench")
    assert [one["state"] for one in again.of("engine")] == ["from the cache"] * 2
    assert again.end["recommended"] == "fp16"  # nothing was measured: INT8 has to be the faster


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "is_strongly_typed"),
    [
        ("8.2.1", False),
        ("8.5.2", False),
        ("8.6.2", False),
        ("10.3.0", False),
        ("10.3.0", True),
        ("10.13.3", True),
        ("10.16.1", True),
        ("11.1.0", True),
    ],
)
def test_every_recorded_version_takes_all_command_lines(
    tmp_path: Path,
    kits: SimpleNamespace,
    build: Build,
    version: str,
    is_strongly_typed: bool,
) -> None:
    kit = kits.write_kit(tmp_path / "kit", version=version, is_strongly_typed=is_strongly_typed)
    machine = kits.write_machine(tmp_path / "machine", kit, version=version)
    done = build(kit, machine, "--repeats=1")
    assert done.status == 0, done.story
    assert done.end["recommended"] == "int8"
    assert report_of(done)["graphs"][0]["latency"]["queries"] == 200  # without 8.2's warm-up


@pytest.mark.slow
def test_int8_that_is_not_faster_is_not_recommended(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit, int8_ms=3.0)
    done = build(kit, machine)
    assert done.status == 0
    assert done.end["recommended"] == "fp16"
    assert "INT8 is not faster" in report_of(done)["reason"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail", "outcome", "status", "message"),
    [
        ("killed", "killed", 6, "killed by a signal from outside (SIGKILL)"),
        ("out of memory", "out-of-memory", 6, "Error Code 2: OutOfMemory"),
        ("refused", "build-failed", 6, "importModel failed"),
        ("no engine", "build-failed", 6, "left no engine"),
        ("wrong", "mismatch", 6, "4 of 4 comparisons fail"),
        ("nan", "mismatch", 6, "NaN or infinite values"),
        ("hang", "timeout", 8, "was not finished after"),
    ],
)
def test_the_old_engine_serves_until_the_new_one_passed(
    tmp_path: Path,
    kits: SimpleNamespace,
    kit: Path,
    build: Build,
    fail: str,
    outcome: str,
    status: int,
    message: str,
) -> None:
    good = kits.write_machine(tmp_path / "good", kit)
    assert build(kit, good, "--no-bench").status == 0
    before = engines(tmp_path)
    bad = kits.write_machine(tmp_path / "bad", kit, fail={"int8": fail})
    deadline = ["--deadline=2"] if fail == "hang" else []
    done = build(kit, bad, "--no-bench", "--rebuild", "--only=int8", *deadline)
    assert done.status == status, done.story
    assert done.end["outcome"] == outcome
    assert message in done.end["message"]
    assert done.end["recommended"] is None
    assert report_of(done)["graphs"][0]["outcome"] == outcome
    assert engines(tmp_path) == before
    assert build(kit, good, "--no-bench", "--check").status == 0


@pytest.mark.slow
def test_fp16_is_left_where_int8_fails(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit, fail={"int8": "wrong"})
    done = build(kit, machine, "--repeats=1")
    assert done.status == 6
    assert done.end["recommended"] == "fp16"
    assert [row["outcome"] for row in report_of(done)["graphs"]] == ["ok", "mismatch"]
    assert "int8.json" not in engines(tmp_path)


@pytest.mark.slow
def test_a_measurement_that_fails_leaves_fp16_and_says_so(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit, fail={"int8": "no bench"})
    done = build(kit, machine)
    assert done.status == 7
    assert done.end["outcome"] == "measurement-failed"
    assert done.end["recommended"] == "fp16"
    assert "Cuda failure" in report_of(done)["settings"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"version": "10.13.3"}, 9, "is for TensorRT 10.3.x, and here is 10.13.3"),
        ({"soc": "nvidia,tegra194"}, 9, "is for a GPU of SM 8.7 (a-jetson), and here is SM 7.2"),
        ({"soc": "brcm,bcm2711"}, 8, "which GPU this is"),
        ({"available_mib": 40}, 6, "40 MiB are free"),
    ],
)
def test_another_machine_is_refused_before_anything_is_built(
    tmp_path: Path,
    kits: SimpleNamespace,
    kit: Path,
    build: Build,
    changes: dict[str, Any],
    status: int,
    message: str,
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit, **changes)
    done = build(kit, machine)
    assert done.status == status, done.story
    assert message in done.end["message"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_no_tensorrt_is_said(
    tmp_path: Path, kit: Path, kits: SimpleNamespace, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit)
    (machine / "bin/trtexec").unlink()
    done = build(kit, machine)
    assert done.status == 8
    assert "no TensorRT was found" in done.end["message"]
    assert "no trtexec in PATH" in done.end["message"]


@pytest.mark.slow
def test_less_memory_than_the_manifest_asks_for_is_said(
    tmp_path: Path, kits: SimpleNamespace, build: Build
) -> None:
    kit = kits.write_kit(tmp_path / "kit", memory_bytes=1 << 30)
    machine = kits.write_machine(tmp_path / "machine", kit, available_mib=512)
    done = build(kit, machine)
    assert done.status == 6
    assert "512 MiB are free, and the kit's manifest asks for 1024 MiB" in done.end["message"]


@pytest.mark.slow
def test_a_kit_without_int8_is_held_against_all_of_its_pack(
    tmp_path: Path, kits: SimpleNamespace, build: Build
) -> None:
    kit = kits.write_kit(tmp_path / "kit", version="8.2.1", sm="5.3", has_int8=False)
    machine = kits.write_machine(tmp_path / "machine", kit, version="8.2.1", soc="nvidia,tegra210")
    done = build(kit, machine, "--only=int8")
    assert (done.status, done.end["message"]) == (9, "this kit has no int8 graph: it has fp16")


@pytest.mark.slow
def test_damaged_and_foreign_engines_are_built_again(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    machine = kits.write_machine(tmp_path / "machine", kit)
    assert build(kit, machine, "--no-bench").status == 0
    before = engines(tmp_path)
    (entry,) = (tmp_path / "cache").glob("*-trt10.3.0-sm8.7")
    record = json.loads((entry / "int8.json").read_text())
    (entry / record["file"]).write_bytes(b"half of it")
    (entry / "fp16.json").write_text(
        json.dumps(json.loads((entry / "fp16.json").read_text()) | {"artifact_id": "b" * 64})
    )
    checked = build(kit, machine, "--check")
    assert checked.status == 9
    assert checked.end["outcome"] == "foreign"
    assert "is of artifact_id" in checked.of("engine")[0]["state"]
    assert "is not the engine that was built" in checked.of("engine")[1]["state"]
    assert build(kit, machine, "--no-bench").status == 0
    after = engines(tmp_path)
    assert after["int8.json.plan"] == before["int8.json.plan"]
    assert build(kit, machine, "--check").status == 0


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_that_the_next_one_minds(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    good = kits.write_machine(tmp_path / "good", kit)
    assert build(kit, good, "--no-bench").status == 0
    before = engines(tmp_path)
    bad = kits.write_machine(tmp_path / "bad", kit, fail={"fp16": "hang"})
    command = [sys.executable, str(kit / "build_engine.py"), str(kit), f"--root={bad}"]
    command += [f"--cache={tmp_path / 'cache'}", "--rebuild", f"--trtexec={bad / 'bin/trtexec'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "building" not in process.stderr.readline():
        pass
    second = build(kit, good)
    assert second.status == 8
    assert second.end["outcome"] == "busy"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert engines(tmp_path) == before
    assert build(kit, good, "--no-bench").status == 0
    assert engines(tmp_path) == before


@pytest.mark.slow
def test_the_python_package_builds_and_what_cannot_be_compared_is_not_published(
    tmp_path: Path, kits: SimpleNamespace, kit: Path, build: Build
) -> None:
    here = Path(__file__).parent
    (tmp_path / "python").mkdir()
    (tmp_path / "python/tensorrt.py").write_text(
        "import json, runpy\n"
        f"made = runpy.run_path({str(here / 'fake_tensorrt.py')!r})['make_module']\n"
        f"with open({str(here / 'data/tensorrt_10.3.0_cu12.json')!r}) as file:\n"
        "    globals().update(vars(made(json.load(file))))\n"
    )
    machine = kits.write_machine(tmp_path / "machine", kit)
    done = build(kit, machine, "--only=fp16", PYTHONPATH=str(tmp_path / "python"))
    assert done.of("tensorrt")[0]["way"] == "python"
    assert done.of("engine")[0]["state"] == "built"
    assert done.status == 8  # no library of CUDA, or no GPU behind it
    assert "libcudart" in done.end["message"] or "cudaStreamCreate" in done.end["message"]
    assert engines(tmp_path) == {}
