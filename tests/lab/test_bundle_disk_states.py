"""Every state that a disk can be in when the power goes during an update.

The writes of an update are recorded as the board's kernel gives them to its disk. A state is a disk
to which they came as far as one of them; or, as disks with a cache of their own may do it, with
some of those left out that came after the last flush. Each state is repaired as a boot does it, by
the journal, and read without being mounted.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import RunningBoard, boot, new_disk, start_board
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.qemu import Machine, Qemu
from edgeship.device_tests.lab.tools import QEMU

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

on_board = SimpleNamespace(**run_path(str(Path(__file__).parent / "bundle_board.py")))
PREFIX: Final = "/opt/edgeship/bright"
SEED: Final = 6
CACHED_STATES: Final = 100
SCRIPT: Final = '. "$0"'
QUICK: Final = f"""\
python3() {{
    case $* in *self-test*) echo '{{"event": "end", "outcome": "ok"}}' ;; esac
}}
{SCRIPT}"""
"""In place of install.sh: the same without a real self-test."""
NO_SYNC: Final = f"sync() {{ :; }}\n{QUICK}"
"""The same without any sync, either."""
KEEP_DATA: Final = "echo 0 > /proc/sys/vm/dirty_writeback_centisecs && sync"
"""From here on data stay in memory until somebody asks for them: the worst that a kernel may do
(its Documentation/admin-guide/sysctl/vm.rst); by itself it writes them after 30 s."""
COMMIT: Final = """\
python3 -c 'import os; file = os.open("/root/other", os.O_CREAT | os.O_WRONLY); os.fsync(file)'"""
"""Another program's fsync: ext4 commits its whole journal for it, and writes no other file's data
(fast_commit is off where mke2fs was not asked for it)."""
PROGRAMS: Final = ("e2fsck", "e2undo", "debugfs")
SECTOR: Final = 512
# Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c of Linux
SUPER: Final = struct.Struct("<QQQI")  # magic, version, entries, sector size
MAGIC: Final = 0x6A736677736872
ENTRY: Final = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of a mark
FLUSH, FUA, DISCARD = 1, 2, 4

# in place of QEMU: the same command, whose disk has a log
RECORDER: Final = """\
#!{python}
import os, sys
words = sys.argv[1:]
place = words.index("-drive")
words[place : place + 2] = {options}
os.execv({qemu!r}, [{qemu!r}, *words])
"""


@dataclass(frozen=True, kw_only=True)
class Write:
    """One request to a disk; a flush has no content."""

    offset: int
    content: bytes
    flags: int


@contextmanager
def recorded(lab: LabImage, disk: Path, log: Path) -> Iterator[RunningBoard]:
    """A board whose writes to its disk are appended to a log."""
    log.write_bytes(b"")
    filters = [
        {"driver": "file", "node-name": "file", "filename": str(disk)},
        {"driver": "file", "node-name": "log", "filename": str(log)},
        {"driver": "raw", "node-name": "raw", "file": "file"},
        {"driver": "blklogwrites", "node-name": "disk", "file": "raw", "log": "log"},
    ]
    options = [word for each in filters for word in ("-blockdev", json.dumps(each))]
    folder = log.parent / "board"
    folder.mkdir()

    def start(machine: Machine, tools: Mapping[str, str]) -> Qemu:
        program = folder / "recorder"
        program.write_text(
            RECORDER.format(python=sys.executable, options=options, qemu=tools[QEMU])
        )
        program.chmod(0o755)
        return Qemu(machine, {**tools, QEMU: str(program)})

    running = start_board(lab_board("raspberry-pi-4"), lab, folder=folder, disk=disk, start=start)
    try:
        yield running
    finally:
        running.power_cut()


def read_log(log: Path) -> list[Write]:
    content = log.read_bytes()
    magic, _, _, sector = SUPER.unpack_from(content)
    assert (magic, sector) == (MAGIC, SECTOR)
    writes, place = [], sector
    while place + sector <= len(content):
        first, count, flags, _ = ENTRY.unpack_from(content, place)
        place += sector
        size = 0 if flags & DISCARD else count * SECTOR
        writes.append(
            Write(offset=first * SECTOR, content=content[place : place + size], flags=flags)
        )
        place += size
    return writes


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk that is written to, looked at, and put back."""

    path: Path
    programs: Mapping[str, str]

    def write(self, write: Write) -> Write:
        """Returns what undoes it."""
        with self.path.open("r+b") as file:
            before = os.pread(file.fileno(), len(write.content), write.offset)
            os.pwrite(file.fileno(), write.content, write.offset)
        return Write(offset=write.offset, content=before, flags=0)

    def current(self, scratch: Path) -> str:
        """The release that is current after a boot; what is wrong, where none is whole."""
        undo, tree = scratch / "undo", scratch / "tree"
        repaired = self._run("e2fsck", "-z", str(undo), "-f", "-p", str(self.path))
        if repaired.returncode not in (0, 1):  # 1: the journal was replayed
            return f"file system: {repaired.stdout}"
        tree.mkdir()
        self._run("debugfs", "-R", f"rdump {PREFIX} {tree}", str(self.path))
        try:
            return str(on_board.installed.current_release(local, str(tree / "bright")))
        except AssertionError as error:
            return f"half: {error}"
        finally:
            shutil.rmtree(tree)
            if undo.exists():
                assert self._run("e2undo", str(undo), str(self.path)).returncode == 0
                undo.unlink()

    def _run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.programs[name], *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)


def local(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def states_in_order(disk: Disk, writes: list[Write], scratch: Path) -> list[str]:
    """After each write; leaves the disk with all of them."""
    states = [disk.current(scratch)]
    for write in writes:
        if write.content:
            disk.write(write)
            states.append(disk.current(scratch))
    return states


def states_of_a_cache(disk: Disk, writes: list[Write], scratch: Path) -> list[str]:
    """With some of the writes since the last flush, whole or cut; leaves the disk with all."""
    generator = random.Random(SEED)
    stops = sorted(generator.choices(range(1, len(writes) + 1), k=CACHED_STATES))
    states, durable = [], 0
    for stop in stops:
        while any(write.flags & FLUSH for write in writes[durable:stop]):
            disk.write(writes[durable])
            durable += 1
        share, undone = generator.choice([0, 0.1, 0.5, 0.9]), []
        for write in writes[durable:stop]:
            if write.flags & FUA or generator.random() < share:
                undone.append(disk.write(write))
            elif generator.random() < share:
                size = SECTOR * generator.randrange(len(write.content) // SECTOR + 1)
                cut = Write(offset=write.offset, content=write.content[:size], flags=0)
                undone.append(disk.write(cut))
        states.append(disk.current(scratch))
        for before in reversed(undone):
            disk.write(before)
    return states


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    system = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=system) for name in PROGRAMS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"NO STATE OF A DISK WAS TESTED: {', '.join(missing)} of e2fsprogs is absent")
    return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A disk with three releases of four, and where the last one waits."""

    disk: Path
    old: str
    new: str
    place: str


@pytest.fixture(scope="module")
def site(
    lab: LabImage,
    programs: dict[str, str],
    built_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """So many that the update also removes one."""
    scratch = tmp_path_factory.mktemp("disk")
    bundles = [
        on_board.changed_bundle(built_template, scratch / f"{number}", note=f"release {number}")
        for number in range(4)
    ]
    disk = new_disk(lab, scratch / "disk.ext4")
    with (
        boot(lab_board("raspberry-pi-4"), lab, disk=disk) as running,
        on_board.login(running, "root") as board,
    ):
        places = [board.unpack(path, "/root") for path in bundles]
        for place in places[:3]:
            done = board.shell(installing(place, QUICK))
            assert done.status == 0, done
    done = subprocess.run([programs["e2fsck"], "-f", "-p", str(disk)], timeout=120)
    assert done.returncode in (0, 1)
    old, new = (on_board.release_of(path) for path in bundles[2:])
    return Site(disk=disk, old=old, new=new, place=places[3])


def installing(place: str, script: str) -> str:
    return f"sh -c {shlex.quote(script)} {place}/install.sh --install"


def updated(lab: LabImage, site: Site, scratch: Path, script: str) -> list[Write]:
    """The writes of an update of a copy of the disk, and of the commit after it."""
    copy, log = scratch / "updated.ext4", scratch / "log"
    subprocess.run(["cp", "--sparse=always", site.disk, copy], check=True, timeout=120)
    with recorded(lab, copy, log) as running, on_board.login(running, "root") as board:
        for command in (KEEP_DATA, installing(site.place, script), COMMIT):
            done = board.shell(command)
            assert done.status == 0, done
    copy.unlink()
    return read_log(log)


@pytest.fixture
def work(site: Site, programs: dict[str, str], tmp_path: Path) -> Disk:
    path = tmp_path / "work.ext4"
    subprocess.run(["cp", "--sparse=always", site.disk, path], check=True, timeout=120)
    return Disk(path=path, programs=programs)


def test_every_state_of_a_disk_has_the_old_release_or_the_new_one(
    lab: LabImage, site: Site, work: Disk, tmp_path: Path
) -> None:
    writes = updated(lab, site, tmp_path, SCRIPT)
    cached = Disk(path=tmp_path / "cached.ext4", programs=work.programs)
    subprocess.run(["cp", "--sparse=always", work.path, cached.path], check=True, timeout=120)
    for states in (
        states_in_order(work, writes, tmp_path),
        states_of_a_cache(cached, writes, tmp_path),
    ):
        print(Counter(states))
        assert set(states) == {site.old, site.new}
    assert states_in_order(work, [], tmp_path) == [site.new]


def test_an_update_without_sync_has_a_state_with_neither(
    lab: LabImage, site: Site, work: Disk, tmp_path: Path
) -> None:
    states = states_in_order(work, updated(lab, site, tmp_path, NO_SYNC), tmp_path)
    print(Counter(states))
    assert any(state.startswith("half: ") for state in states)
