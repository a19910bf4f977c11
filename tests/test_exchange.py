from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeship.exchange
from edgeship.exchange import (
    install_directory,
    new_directory,
    project_lock,
    recover_directories,
    write_file,
)

EXCHANGES = 50
Tree = dict[str, str]


def _tree(directory: Path) -> Tree:
    """Every file below a directory with its text, every empty directory with a slash."""
    return {
        f"{path.relative_to(directory)}{'/' if path.is_dir() else ''}": (
            "" if path.is_dir() else path.read_text()
        )
        for path in directory.rglob("*")
        if not path.is_dir() or not any(path.iterdir())
    }


def _write_tree(directory: Path, tree: Tree) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in tree.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return directory


def _can_exchange(directory: Path) -> bool:
    one, other = directory / "probe-one", directory / "probe-other"
    one.mkdir()
    other.mkdir()
    try:
        return edgeship.exchange._exchange(one, other)
    finally:
        one.rmdir()
        other.rmdir()


@pytest.fixture(params=["one-exchange", "two-renames"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to install: the system call, and what is done where there is none."""
    if request.param == "two-renames":
        monkeypatch.setattr(edgeship.exchange, "_exchange", lambda *_: False)
    elif not _can_exchange(tmp_path):
        pytest.skip("this system or disk has no renameat2(RENAME_EXCHANGE)")
    return str(request.param)


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python programs that are gone when the test ends."""
    children: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(process)
        return process

    yield start
    for process in children:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# write_file


def test_write_file_makes_its_directory_and_replaces_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for content in (b"one", b"", bytes(range(256))):
        write_file(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]  # noqa: PTH208  # the names, hidden ones too


def test_written_file_is_readable_by_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "file", b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"one")
    with pytest.raises(TypeError):
        write_file(tmp_path / "file", "no bytes")  # type: ignore[arg-type]  # makes it fail midway
    assert _tree(tmp_path) == {"file": "one"}


def test_failed_replacement_leaves_no_temporary_file(tmp_path: Path) -> None:
    _write_tree(tmp_path, {"taken/inside": "kept"})
    with pytest.raises(OSError, match="taken"):
        write_file(tmp_path / "taken", b"one")
    assert _tree(tmp_path) == {"taken/inside": "kept"}


def test_reader_never_meets_a_missing_or_partial_file(tmp_path: Path) -> None:
    path, faults = tmp_path / "file", list[str]()
    contents = {bytes([number]) * 100_000 for number in range(2)}
    write_file(path, min(contents))

    def read() -> None:
        try:
            if path.read_bytes() not in contents:
                faults.append("partial")
        except FileNotFoundError:
            faults.append("missing")

    with _Running(read):
        for _ in range(EXCHANGES // 2):
            for content in contents:
                write_file(path, content)
    assert faults == []


# install_directory


OLD: Tree = {"manifest.json": "old", "sub/model": "old", "gone": "old"}
NEW: Tree = {"manifest.json": "new", "sub/model": "new", "labels": "new", "empty/": ""}


@pytest.mark.usefixtures("way")
def test_install_replaces_a_directory_as_a_whole(tmp_path: Path) -> None:
    destination = _write_tree(tmp_path / "parent" / "artifact", OLD)
    install_directory(_write_tree(tmp_path / "parent" / ".new-1", NEW), destination)
    assert _tree(destination) == NEW
    assert os.listdir(tmp_path / "parent") == ["artifact"]  # noqa: PTH208


@pytest.mark.usefixtures("way")
def test_install_into_an_empty_place(tmp_path: Path) -> None:
    install_directory(_write_tree(tmp_path / "parent" / ".new-1", NEW), tmp_path / "parent" / "a")
    assert _tree(tmp_path / "parent" / "a") == NEW
    assert os.listdir(tmp_path / "parent") == ["a"]  # noqa: PTH208


@pytest.mark.usefixtures("way")
def test_install_replaces_a_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = _write_tree(tmp_path / "elsewhere", OLD)
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "artifact").symlink_to(elsewhere)
    install_directory(_write_tree(parent / ".new-1", NEW), parent / "artifact")
    assert _tree(parent / "artifact") == NEW
    assert _tree(elsewhere) == OLD
    assert os.listdir(parent) == ["artifact"]  # noqa: PTH208


@pytest.mark.usefixtures("way")
def test_install_of_nothing_keeps_the_old(tmp_path: Path) -> None:
    _write_tree(tmp_path / "artifact", OLD)
    with pytest.raises(FileNotFoundError):
        install_directory(tmp_path / ".new-1", tmp_path / "artifact")
    assert _tree(tmp_path) == {f"artifact/{name}": text for name, text in OLD.items()}


def test_install_from_another_disk_fails_and_keeps_the_old(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    _write_tree(tmp_path / "artifact", OLD)
    with new_directory(memory) as new:
        _write_tree(new, NEW)
        with pytest.raises(OSError, match="link"):  # EXDEV: invalid cross-device link
            install_directory(new, tmp_path / "artifact")
        assert _tree(new) == NEW
    assert _tree(tmp_path) == {f"artifact/{name}": text for name, text in OLD.items()}


def test_install_by_renames_puts_the_old_back_on_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_new(new: Path, _: Path) -> bool:
        shutil.rmtree(new)
        return False

    monkeypatch.setattr(edgeship.exchange, "_exchange", lose_new)
    _write_tree(tmp_path / "artifact", OLD)
    with pytest.raises(FileNotFoundError):
        install_directory(_write_tree(tmp_path / ".new-1", NEW), tmp_path / "artifact")
    assert _tree(tmp_path) == {f"artifact/{name}": text for name, text in OLD.items()}


def test_reader_never_meets_a_missing_or_mixed_directory(tmp_path: Path) -> None:
    if not _can_exchange(tmp_path):
        pytest.skip("this system or disk has no renameat2(RENAME_EXCHANGE)")
    destination, faults = tmp_path / "artifact", list[str]()
    _write_tree(destination, {"one": "first", "other": "first"})

    def read() -> None:
        try:
            descriptor = os.open(destination, os.O_RDONLY)
        except FileNotFoundError:
            faults.append("the directory was missing")
            return
        try:
            if len(texts := {_text_in(descriptor, name) for name in ("one", "other")}) > 1:
                faults.append(f"mixed: {texts}")
        except FileNotFoundError:
            # Fair only if the directory was replaced, and is being removed, since it was opened.
            if os.fstat(descriptor).st_ino == destination.stat().st_ino:
                faults.append("a file was missing")
        finally:
            os.close(descriptor)

    with _Running(read) as count:
        for number in range(EXCHANGES):
            with new_directory(tmp_path) as new:
                _write_tree(new, {"one": str(number), "other": str(number)})
                install_directory(new, destination)
    assert faults == []
    assert count() > EXCHANGES
    assert _tree(tmp_path) == {"artifact/one": "49", "artifact/other": "49"}


def _text_in(directory: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY, dir_fd=directory)) as file:  # noqa: PTH123  # a descriptor
        return file.read()


class _Running:
    """Calls `action` again and again in a thread, at least once before the block is entered."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._is_over, self._has_begun = threading.Event(), threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Callable[[], int]:
        self._thread.start()
        assert self._has_begun.wait(timeout=30)
        return lambda: self._count

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._action()
            self._count += 1
            self._has_begun.set()


# recover_directories and new_directory


@pytest.mark.parametrize(
    ("left", "recovered"),
    [
        ({}, {}),
        ({"artifact/a": "good"}, {"artifact/a": "good"}),
        ({".new-1/half": "", "artifact/a": "good"}, {"artifact/a": "good"}),
        ({".new-1/": "", ".new-2/sub/half": ""}, {}),
        ({".new-file": "half", "artifact/a": "good"}, {"artifact/a": "good"}),
        ({".old-artifact/a": "good"}, {"artifact/a": "good"}),
        ({".old-artifact/a": "good", ".new-1/a": "new"}, {"artifact/a": "good"}),
        ({".old-artifact/a": "old", "artifact/a": "new"}, {"artifact/a": "new"}),
        (
            {".old-one/a": "1", ".old-two/a": "old", "two/a": "2", ".new-1/a": "", "x": "x"},
            {"one/a": "1", "two/a": "2", "x": "x"},
        ),
    ],
    ids=[
        "nothing",
        "nothing-was-killed",
        "killed-while-writing",
        "killed-twice-while-writing",
        "killed-while-writing-a-file",
        "killed-between-renames-and-new-is-lost",
        "killed-between-renames",
        "killed-while-removing-the-old",
        "several-artifacts",
    ],
)
def test_recovery_from_every_state_that_a_kill_can_leave(
    tmp_path: Path, left: Tree, recovered: Tree
) -> None:
    _write_tree(tmp_path, left)
    for _ in range(2):  # recovering again changes nothing
        recover_directories(tmp_path)
        assert _tree(tmp_path) == recovered


def test_recovery_of_a_link_set_aside_leaves_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = _write_tree(tmp_path / "elsewhere", OLD)
    _write_tree(tmp_path / "parent" / "artifact", NEW)
    (tmp_path / "parent" / ".old-artifact").symlink_to(elsewhere)
    recover_directories(tmp_path / "parent")
    assert os.listdir(tmp_path / "parent") == ["artifact"]  # noqa: PTH208
    assert _tree(elsewhere) == OLD


def test_recovery_where_nothing_was_ever_built_makes_nothing(tmp_path: Path) -> None:
    recover_directories(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_new_directory_is_fresh_readable_and_removed(tmp_path: Path) -> None:
    with new_directory(tmp_path / "build") as one, new_directory(tmp_path / "build") as other:
        assert one != other
        assert one.name.startswith(".new-")
        assert stat.S_IMODE(one.stat().st_mode) == 0o755
        (one / "half").write_text("half")
    assert _tree(tmp_path) == {"build/": ""}


def test_new_directory_is_removed_on_error(tmp_path: Path) -> None:
    def write_half() -> None:
        with new_directory(tmp_path / "build") as new:
            (new / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert _tree(tmp_path) == {"build/": ""}


WRITER = """
import sys, pathlib
from edgeship.exchange import new_directory
with new_directory(pathlib.Path(sys.argv[1])) as new:
    (new / "half").write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_killed_build_leaves_the_last_good_artifact(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    _write_tree(tmp_path / "artifact", OLD)
    process = child(WRITER, tmp_path)
    assert _line(process) == "written"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob(".new-*/half"))) == 1
    recover_directories(tmp_path)
    assert _tree(tmp_path) == {f"artifact/{name}": text for name, text in OLD.items()}


# project_lock


HOLDER = """
import sys, pathlib
from edgeship.exchange import project_lock
lock, marker = map(pathlib.Path, sys.argv[1:])
with project_lock(lock, on_wait=lambda pid: print("waits for", pid, flush=True)):
    print("holds, marker is", marker.exists(), flush=True)
    sys.stdin.read()
"""


def _refuse_to_wait(pid: str) -> None:
    pytest.fail(f"waits for {pid}")


def test_second_process_waits_for_the_first_and_is_told_its_pid(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    lock, marker = tmp_path / ".edgeship" / "lock", tmp_path / "marker"
    with project_lock(lock, on_wait=_refuse_to_wait):
        second = child(HOLDER, lock, marker)
        assert _line(second) == f"waits for {os.getpid()}"
        marker.touch()
    assert _line(second) == "holds, marker is True"
    assert lock.read_text() == str(second.pid)


def test_lock_of_a_killed_process_is_free(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    lock = tmp_path / "lock"
    process = child(HOLDER, lock, tmp_path / "marker")
    assert _line(process) == "holds, marker is False"
    process.kill()
    process.wait()
    with project_lock(lock, on_wait=_refuse_to_wait):
        assert lock.read_text() == str(os.getpid())


def test_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), project_lock(tmp_path / "lock", on_wait=_refuse_to_wait):
        raise KeyError
    with project_lock(tmp_path / "lock", on_wait=_refuse_to_wait):
        pass
