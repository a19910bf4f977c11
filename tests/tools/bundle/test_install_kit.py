"""install.sh with TensorRT kits: engines are built where it runs, by a stand-in for trtexec."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeship.artifact import read_artifact, write_manifest
from edgeship.device_tests.board_archive import archive_bytes
from edgeship.errors import ConfigurationError
from edgeship.tools.bundle.bundle import Bundle, bundle
from edgeship.tools.bundle.description import Judged
from edgeship.tools.verify import verify

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
made = SimpleNamespace(**run_path(str(HERE / "made.py")))
installed = SimpleNamespace(**run_path(str(HERE / "installed.py")))
kits = SimpleNamespace(**run_path(str(HERE.parents[1] / "exporters/tensorrt/kit/kits.py")))
Install = Callable[..., "subprocess.CompletedProcess[str]"]
ENGINE = "artifacts/tensorrt-kit/engine"


def bundled(directory: Path, kit: Path, board_archive: bytes | None = None) -> Bundle:
    return bundle(
        [Judged(artifact=read_artifact(kit), judgements=())],
        name="bright",
        target=replace(made.this_machine(), name="a-jetson"),
        destination=directory,
        board_archive=board_archive or archive_bytes(),
    )


def release(directory: Path, kit: Path, board_archive: bytes | None = None) -> Path:
    path = bundled(directory, kit, board_archive).path
    with tarfile.open(path) as archive:
        archive.extractall(directory, filter="data")
    return directory / path.stem


def noted(kit: Path, note: str) -> Path:
    """The same kit with something else said of it: another artifact."""
    manifest = read_artifact(kit).manifest
    write_manifest(kit, replace(manifest, notes=(*manifest.notes, note)))
    return kit


def python_of(directory: Path, machine: Path) -> str:
    """A Python that has build_engine.py look at another machine, and measure for a second."""
    directory.mkdir(exist_ok=True)
    path = directory / "python"
    path.write_text(
        f"#!/bin/sh\nPATH={machine}/bin:$PATH\ncase $1 in */build_engine.py) "
        f'exec {sys.executable} "$@" --root={machine} --duration=1 --repeats=1 ;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = kits.write_kit(tmp_path_factory.mktemp("kits") / "kit")
    return path


@pytest.fixture(scope="module")
def releases(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two, of kits that differ."""
    directory = tmp_path_factory.mktemp("releases")
    other = noted(kits.write_kit(directory / "other"), "another")
    return [release(directory, kit), release(directory, other)]


@pytest.fixture
def python(tmp_path: Path, kit: Path) -> str:
    return python_of(tmp_path / "good", kits.write_machine(tmp_path / "machine", kit))


def engine_of(prefix: Path) -> dict[str, Any]:
    text = (prefix / "current" / ENGINE).read_text()
    value: dict[str, Any] = json.loads(text.removeprefix("STAND-IN ENGINE "))
    return value


def engines(prefix: Path) -> list[str]:
    return sorted(path.name for path in (prefix / "engines").iterdir() if path.is_dir())


def test_engines_are_built_before_a_release_becomes_current(
    install: Install, releases: list[Path], python: str, tmp_path: Path
) -> None:
    first, second = releases
    prefix = tmp_path / "prefix"
    checked = install(first, "--check", python=python)
    assert checked.returncode == 0, checked.stderr
    assert "int8: not built" in checked.stderr
    assert not prefix.exists()

    done = install(first, "--install", python=python)
    assert done.returncode == 0, done.stderr
    assert engine_of(prefix)["graph"] == "int8"
    assert (prefix / "current" / ENGINE).is_symlink()
    (kept,) = engines(prefix)

    again = install(first, "--install", python=python)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

    assert install(second, "--install", python=python).returncode == 0
    assert len(engines(prefix)) == 2
    back = install(prefix / "current", "--rollback", python=python)
    assert back.returncode == 0, back.stderr
    assert "from the cache" in (prefix / "self-test.log").read_text()
    assert "building" not in back.stderr
    assert (prefix / "current" / ENGINE).resolve().parent.name == kept

    assert install(first, "--uninstall").returncode == 0
    assert not prefix.exists()


def test_an_update_that_does_not_change_the_kit_builds_nothing(
    install: Install, kit: Path, releases: list[Path], python: str, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    assert install(releases[0], "--install", python=python).returncode == 0
    served = (prefix / "current" / ENGINE).resolve()
    update = release(tmp_path, kit, b"another program beside the same kit")
    done = install(update, "--install", python=python)
    assert done.returncode == 0, done.stderr
    assert "building" not in done.stderr
    assert (prefix / "current" / ENGINE).resolve() == served
    assert (prefix / "previous" / ENGINE).resolve() == served
    assert len(engines(prefix)) == 1


def test_an_engine_that_is_gone_is_built_again(
    install: Install, releases: list[Path], python: str, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    for one in releases:
        assert install(one, "--install", python=python).returncode == 0
    previous = (prefix / "previous").readlink()
    (prefix / "current" / ENGINE).resolve().unlink()
    done = install(releases[1], "--install", python=python)
    assert done.returncode == 0, done.stderr
    assert (prefix / "current" / ENGINE).is_file()
    assert (prefix / "previous").readlink() == previous


@pytest.mark.parametrize(
    ("fail", "code", "said"),
    [
        ({"int8": "out of memory"}, 6, "out-of-memory"),
        ({"fp16": "killed"}, 6, "killed by a signal"),
        ({"int8": "wrong"}, 6, "comparisons fail"),
    ],
)
def test_the_old_engine_serves_where_the_new_one_fails(
    install: Install,
    kit: Path,
    releases: list[Path],
    python: str,
    tmp_path: Path,
    fail: dict[str, str],
    code: int,
    said: str,
) -> None:
    prefix = tmp_path / "prefix"
    assert install(releases[0], "--install", python=python).returncode == 0
    before, engine = engines(prefix), (prefix / "current" / ENGINE).read_text()
    machine = kits.write_machine(tmp_path / "failing", kit, fail=fail)
    done = install(releases[1], "--install", python=python_of(tmp_path / "bad", machine))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "current stays" in done.stderr
    assert (prefix / "current" / ENGINE).read_text() == engine
    (kept,) = set(engines(prefix)) - set(before)
    assert list((prefix / "engines" / kept).glob("*.log"))

    done = install(releases[1], "--install", python=python)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("building") == 1  # the other one is there
    assert engines(prefix) == sorted([*before, kept])


def test_what_failed_before_another_release_goes(
    install: Install, kit: Path, releases: list[Path], python: str, tmp_path: Path
) -> None:
    machine = kits.write_machine(tmp_path / "failing", kit, fail={"int8": "killed"})
    failing = python_of(tmp_path / "bad", machine)
    assert install(releases[0], "--install", python=failing).returncode == 6
    (failed,) = engines(tmp_path / "prefix")
    assert install(releases[1], "--install", python=python).returncode == 0
    (served,) = engines(tmp_path / "prefix")
    assert served != failed


def test_another_tensorrt_on_the_board_has_its_own_engines_built(
    install: Install, kit: Path, releases: list[Path], python: str, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    assert install(releases[0], "--install", python=python).returncode == 0
    machine = kits.write_machine(tmp_path / "other", kit, version="10.3.1")
    patched = python_of(tmp_path / "patched", machine)
    told = install(releases[0], "--status", python=patched)
    assert told.returncode == 9
    assert "no engine that this board's TensorRT can load" in told.stderr
    done = install(releases[0], "--install", python=patched)
    assert done.returncode == 0, done.stderr
    (key,) = engines(prefix)
    assert "-trt10.3.1-" in key
    assert engine_of(prefix)["version"] == "10.3.1"
    told = install(releases[0], "--status", python=patched)
    assert told.returncode == 0, told.stderr
    assert f"engines/{key}/int8-" in told.stdout

    newer = kits.write_machine(tmp_path / "newer", kit, version="10.13.3")
    done = install(releases[0], "--install", python=python_of(tmp_path / "new", newer))
    assert done.returncode == 9
    assert engine_of(prefix)["version"] == "10.3.1"


def test_another_board_is_refused_before_anything_is_written(
    install: Install, kit: Path, releases: list[Path], tmp_path: Path
) -> None:
    for name, facts, code, said in [
        ("version", {"version": "8.5.2"}, 9, "TensorRT 10.3"),
        ("gpu", {"soc": "nvidia,tegra194"}, 9, "7.2"),
    ]:
        machine = kits.write_machine(tmp_path / name, kit, **facts)
        for action in ("--check", "--install"):
            done = install(releases[0], action, python=python_of(tmp_path / f"{name}-py", machine))
            assert done.returncode == code, done.stderr
            assert said in done.stderr
            assert "no engine of artifacts/tensorrt-kit can be built here" in done.stderr
    assert install(releases[0], "--check", python="no-such-python").returncode == 8
    assert not (tmp_path / "prefix").exists()


def test_a_bundle_of_a_kit_says_that_no_engine_was_built(releases: list[Path]) -> None:
    (described,) = json.loads((releases[0] / "bundle.json").read_text())["artifacts"]
    assert described["engine"].startswith("engine not built")
    assert "engine not built" in (releases[0] / "README.txt").read_text()
    facts = (releases[0] / "release.txt").read_text().splitlines()
    assert "kit artifacts/tensorrt-kit" in facts
    assert not [line for line in facts if line.startswith("artifact ")]
    assert verify(releases[0].with_suffix(".tar")) == []


def test_a_kit_without_its_builder_is_not_bundled(tmp_path: Path, kit: Path) -> None:
    manifest = read_artifact(kit).manifest
    files = tuple(file for file in manifest.files if file.name != "build_engine.py")
    other = tmp_path / "kit"
    other.mkdir()
    for file in files:
        (other / file.name).parent.mkdir(exist_ok=True)
        (other / file.name).write_bytes((kit / file.name).read_bytes())
    write_manifest(other, replace(manifest, files=files))
    with pytest.raises(ConfigurationError, match="has no program that builds its engines"):
        bundled(tmp_path / "out", other)


def test_an_installation_that_is_killed_takes_its_build_along(
    shell: list[str], install: Install, kit: Path, releases: list[Path], tmp_path: Path
) -> None:
    machine = kits.write_machine(tmp_path / "hanging", kit, fail={"int8": "hang"})
    command = [*shell, str(releases[0] / "install.sh"), "--install"]
    command += ["--prefix", str(tmp_path / "prefix"), "--python"]
    running = subprocess.Popen(
        [*command, python_of(tmp_path / "bad", machine)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    while "int8: building" not in running.stderr.readline():
        assert running.poll() is None
    running.kill()
    running.stderr.read()  # to its end: nobody has it open any more
    running.wait()
    good = python_of(tmp_path / "good", kits.write_machine(tmp_path / "machine", kit))
    done = install(releases[0], "--install", python=good)
    assert done.returncode == 0, done.stderr
