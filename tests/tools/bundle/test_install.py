"""install.sh with real shells, a real Python and a stand-in for the board's program."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest

HERE = Path(__file__).parent
made = SimpleNamespace(**run_path(str(HERE / "made.py")))
installed = SimpleNamespace(**run_path(str(HERE / "installed.py")))
Install = Callable[..., "subprocess.CompletedProcess[str]"]


def local(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def current(tmp_path: Path) -> str | None:
    release: str | None = installed.current_release(local, str(tmp_path / "prefix"))
    return release


def identity(release: Path) -> str:
    return release.name.rpartition("-")[2]


def tree(directory: Path) -> dict[str, str]:
    """What stands below a directory: links by their targets, files by their bytes."""
    return {
        str(path.relative_to(directory)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes().hex()
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def unpack(directory: Path, *artifacts: object, board_archive: bytes | None = None) -> Path:
    bundled = made.make_bundle(directory, *artifacts, board_archive=board_archive)
    with tarfile.open(bundled.path) as archive:
        archive.extractall(directory, filter="data")
    return directory / str(bundled.path.stem)


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_release_is_checked_installed_replaced_and_rolled_back_to(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    first, second = releases[:2]
    checked = install(first, "--check")
    assert checked.returncode == 0, checked.stderr
    assert not (tmp_path / "prefix").exists()
    assert install(first, "--status").returncode == 8

    done = install(first, "--install", python=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "self-test: ok" in done.stderr
    assert current(tmp_path) == identity(first)
    assert install(second, "--install").returncode == 0
    assert current(tmp_path) == identity(second)
    told = install(second, "--status")
    assert told.returncode == 0
    assert f"previous: {identity(first)}" in told.stdout

    again = install(tmp_path / "prefix/current", "--rollback")
    assert again.returncode == 0, again.stderr
    assert current(tmp_path) == identity(first)
    assert (tmp_path / "prefix/previous").readlink() == Path("releases", identity(second))

    assert install(first, "--uninstall").returncode == 0
    assert not (tmp_path / "prefix").exists()


def test_the_same_release_again_changes_nothing(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    assert install(releases[0], "--install").returncode == 0
    before = tree(tmp_path / "prefix")
    done = install(releases[0], "--install", python="no-such-python")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    after = tree(tmp_path / "prefix")
    assert before.pop(".lock") != after.pop(".lock")  # the process that held it last
    assert after == before


TOOLS: Final = (
    *("sh", "sha256sum", "readlink", "sed", "df", "dirname", "id", "uname", "mkdir", "rm", "mv"),
    *("cp", "ln", "ls", "sync", "cat", "wc", "grep", "touch"),
)
"""All that install.sh calls."""
OUTCOMES: Final = {
    "mismatch": 6,
    "failed": 6,
    "silent": 6,
    "no-runtime": 8,
    "wrong-numpy": 8,
    "illegal-instruction": 9,
    "out-of-memory": 6,
    "timeout": 8,
}
COMMONEST: Final = {"mismatch": 6, "no-runtime": 8}


@pytest.mark.parametrize(
    "outcomes", [COMMONEST, pytest.param(OUTCOMES, marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_a_release_that_fails_its_self_test_leaves_the_old_one(
    install: Install, releases: list[Path], tmp_path: Path, outcomes: dict[str, int]
) -> None:
    assert install(releases[0], "--install").returncode == 0
    before = tree(tmp_path / "prefix/releases")
    for outcome, code in outcomes.items():
        bad = unpack(tmp_path, made.make_artifact(tmp_path / outcome, f"{outcome} 1"))
        done = install(bad, "--install")
        assert done.returncode == code, outcome
        assert f"current stays {identity(releases[0])}" in done.stderr
        assert tree(tmp_path / "prefix/releases") == before
        assert current(tmp_path) == identity(releases[0])


@pytest.mark.slow
def test_a_self_test_that_never_ends_is_ended(tmp_path: Path) -> None:
    bad = unpack(tmp_path, made.make_artifact(tmp_path / "bad", "endless 1"))
    command = ["sh", str(bad / "install.sh"), "--install", "--prefix", str(tmp_path / "prefix")]
    command += ["--python", sys.executable, "--deadline", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 8
    assert '"timeout"' in done.stderr
    assert current(tmp_path) is None


@pytest.mark.slow
def test_one_artifact_of_two_that_fails_is_enough(install: Install, tmp_path: Path) -> None:
    outcomes = {"fp16": "ok", "fp32": "mismatch", "int8": "ok"}
    made_of = {
        precision: made.make_artifact(tmp_path / precision, f"{outcome} 1", precision=precision)
        for precision, outcome in outcomes.items()
    }
    for precisions in (("fp16", "fp32"), ("fp32", "int8")):
        release = unpack(tmp_path, *(made_of[precision] for precision in precisions))
        assert install(release, "--install").returncode == 6
    assert current(tmp_path) is None


@pytest.mark.parametrize(
    "fault",
    ["cut list", *(pytest.param(f, marks=pytest.mark.slow) for f in ("changed", "absent", "more"))],
)
def test_a_damaged_release_is_refused_before_anything_changes(
    install: Install, releases: list[Path], tmp_path: Path, fault: str
) -> None:
    assert install(releases[0], "--install").returncode == 0
    before = tree(tmp_path / "prefix")
    damaged = Path(shutil.copytree(releases[1], tmp_path / "damaged"))
    model, sums = damaged / "artifacts/onnx-int8/model.onnx", damaged / "SHA256SUMS"
    if fault == "changed":
        model.write_text("ok 9")
    elif fault == "absent":
        model.unlink()
    elif fault == "more":
        sums.write_text(f"{sums.read_text()}{'0' * 64}  nowhere\n")
    else:
        sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))
    for action in ("--check", "--install"):
        done = install(damaged, action)
        assert done.returncode == 9
        assert "unpack it again" in done.stderr
    assert tree(tmp_path / "prefix") == before


@pytest.mark.slow
def test_a_damaged_current_release_is_replaced_by_its_archive(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    assert install(releases[0], "--install").returncode == 0
    (tmp_path / "prefix/current/artifacts/onnx-int8/model.onnx").write_text("bad 1")
    assert install(releases[0], "--status").returncode == 9
    done = install(releases[0], "--install")
    assert done.returncode == 0, done.stderr
    assert current(tmp_path) == identity(releases[0])
    assert "nothing to do" in install(releases[0], "--install").stdout


def test_a_previous_release_that_is_damaged_or_fails_is_not_rolled_back_to(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    assert install(releases[0], "--install").returncode == 0
    assert install(releases[0], "--rollback").returncode == 8
    assert install(releases[1], "--install").returncode == 0
    failing = program(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    assert install(releases[1], "--rollback", python=failing).returncode == 6
    assert install(releases[1], "--rollback", python="no-such-python").returncode == 8
    (tmp_path / "prefix/previous/bundle.json").unlink()
    assert install(releases[1], "--rollback").returncode == 9
    assert current(tmp_path) == identity(releases[1])


@pytest.mark.slow
def test_old_releases_go_and_never_those_that_a_link_names(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    for release in releases[:2]:
        assert install(release, "--install").returncode == 0
    place = tmp_path / "prefix/releases"
    for age, name in enumerate(["newest", "newer", "new", "old"]):
        os.utime(shutil.copytree(releases[2], place / name), (0, 2_000_000_000 - age))
    assert install(releases[1], "--install").returncode == 0
    linked = {identity(release) for release in releases[:2]}
    assert {path.name for path in place.iterdir()} == {"newest", "newer", "new", *linked}

    assert install(releases[0], "--install").returncode == 0  # an old one, without a copy
    assert current(tmp_path) == identity(releases[0])
    assert (tmp_path / "prefix/previous").readlink().name == identity(releases[1])


def test_what_the_board_lacks_is_told_at_once(install: Install, tmp_path: Path) -> None:
    needy = made.make_artifact(tmp_path / "a", runtimes=["nosuch", "other"], memory_bytes=1 << 50)
    release = unpack(tmp_path, needy)
    bare = program(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    done = install(release, "--check", python=bare)
    assert done.returncode == 8
    for word in ("numpy", "nosuch or other", "of memory"):
        assert word in done.stderr
    assert install(release, "--install", python=bare).returncode == 8
    assert install(release, "--check", python="no-such-python").returncode == 8
    assert not (tmp_path / "prefix").exists()


def test_another_architecture_is_refused(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(releases[0], tmp_path / "other"))
    facts = (other / "release.txt").read_text()
    (other / "release.txt").write_text(facts.replace(f"arch {os.uname().machine}", "arch vax"))
    sums = subprocess.run(
        ["sha256sum", "release.txt"], cwd=other, capture_output=True, text=True, check=True
    )
    lines = (other / "SHA256SUMS").read_text().splitlines()
    kept = [line for line in lines if not line.endswith("  release.txt")]
    (other / "SHA256SUMS").write_text("\n".join([*kept, sums.stdout.strip(), ""]))
    done = install(other, "--check")
    assert done.returncode == 9
    assert "for vax" in done.stderr


def test_of_two_installations_at_once_one_is_told_to_wait(
    shell: list[str], install: Install, releases: list[Path], tmp_path: Path
) -> None:
    assert install(releases[0], "--install").returncode == 0
    holder = subprocess.Popen(
        [*shell, "-c", f"exec 9>>{tmp_path}/prefix/.lock; flock -n 9 && echo held && read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for action in ("--install", "--rollback", "--uninstall"):
        done = install(releases[1], action)
        assert done.returncode == 75
        assert "wait for its end" in done.stderr
    assert current(tmp_path) == identity(releases[0])
    holder.kill()
    holder.communicate()
    assert install(releases[1], "--install").returncode == 0


@pytest.mark.slow
def test_a_board_without_flock_uses_its_python(releases: list[Path], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    command = ["/bin/sh", str(releases[0] / "install.sh"), "--install"]
    command += ["--prefix", str(tmp_path / "prefix"), "--python", sys.executable]
    holder = tmp_path / "prefix/.lock"
    holder.parent.mkdir()
    environment = {"PATH": str(tools)}
    with holder.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert subprocess.run(command, capture_output=True, env=environment).returncode == 75
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert current(tmp_path) == identity(releases[0])


@pytest.mark.slow
def test_a_board_whose_mv_has_no_T_uses_its_python(releases: list[Path], tmp_path: Path) -> None:
    old_mv = 'mv() { [ "$1" != -fT ] || return 1; command mv "$@"; }; . "$0"'
    for release in releases[:2]:
        command = ["sh", "-c", old_mv, str(release / "install.sh"), "--install"]
        command += ["--prefix", str(tmp_path / "prefix"), "--python", sys.executable]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert current(tmp_path) == identity(release)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--chekc"],
        ["--check", "--install"],
        ["--install", "--prefix"],
        ["--check", "--deadline", "x"],
    ],
)
def test_wrong_arguments_are_exit_2(releases: list[Path], arguments: list[str]) -> None:
    done = subprocess.run(["sh", releases[0] / "install.sh", *arguments], capture_output=True)
    assert done.returncode == 2
    assert done.stderr


def test_names_with_blanks_and_other_letters_survive(install: Install, tmp_path: Path) -> None:
    artifact = made.make_artifact(tmp_path / "a", labels="étiquettes à 'moi' $HOME.txt")
    done = install(unpack(tmp_path, artifact), "--install")
    assert done.returncode == 0, done.stderr
    assert current(tmp_path) is not None


def test_unlisted_files_are_not_installed(
    install: Install, releases: list[Path], tmp_path: Path
) -> None:
    release = Path(shutil.copytree(releases[0], tmp_path / "release"))
    (release / "notes.txt").write_text("mine")
    assert install(release, "--install").returncode == 0
    assert not (tmp_path / "prefix/current/notes.txt").exists()


@pytest.mark.slow
def test_a_built_artifact_installs_where_its_outputs_match_and_nowhere_else(
    shell: list[str], built: Path, tmp_path: Path
) -> None:
    """With the board's own program and a real runtime."""
    from edgeship.artifact import describe_file, read_artifact, write_manifest
    from edgeship.device_tests.board_archive import archive_bytes

    directory = built / "build/raspberry-pi-4/onnx-int8"
    command = ["--install", "--prefix", str(tmp_path / "prefix"), "--python", sys.executable]

    def install_built() -> tuple[int, str]:
        release = unpack(tmp_path, read_artifact(directory), board_archive=archive_bytes())
        done = subprocess.run(
            [*shell, str(release / "install.sh"), *command], capture_output=True, text=True
        )
        return done.returncode, done.stderr

    code, told = install_built()
    assert code == 0, told
    good = current(tmp_path)
    assert good is not None
    assert "the golden pack matches in onnxruntime" in told

    manifest = read_artifact(directory).manifest
    expected = directory / "golden/case0.0.artifact-on-host.bin"
    wrong = np.frombuffer(expected.read_bytes(), "<f4") + np.float32(99)
    expected.write_bytes(wrong.astype("<f4").tobytes())
    files = [describe_file(directory, file.name, file.role) for file in manifest.files]
    write_manifest(directory, replace(manifest, files=tuple(files)))
    code, told = install_built()
    assert code == 6, told
    assert current(tmp_path) == good
