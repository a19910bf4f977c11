"""The power goes at seeded points of updates, on one disk that keeps what was written.

What QEMU was given to write before it is killed stays written: this is a disk without a cache of
its own. What the board's kernel still held is lost.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import RunningBoard, boot, new_disk
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.transports.protocol import ConnectionFailed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

on_board = SimpleNamespace(**run_path(str(Path(__file__).parent / "bundle_board.py")))
PREFIX: Final = "/opt/edgeship/bright"
CUTS: Final = int(os.environ.get("EDGESHIP_POWER_CUTS", "6"))
SEED: Final = int(os.environ.get("EDGESHIP_POWER_CUT_SEED", "6"))
COMMAND_S: Final = 0.1
"""A command of coreutils takes 40 to 60 ms on the board (measured): before, within and after it."""
BEGIN: Final = "+ set -eu"
COPY: Final = "+ copy_release"
RENAME: Final = f"+ mv -- {PREFIX}/releases/.new-"
TEST: Final = "+ self_test"
END: Final = "+ touch"
PREVIOUS: Final = "+ point previous"
CURRENT: Final = "+ point current"
PRUNE: Final = "+ remove_release"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """When the power goes: so long after the first line of `sh -x` that holds `line`."""

    line: str
    after_s: float


@dataclass(kw_only=True)
class Trace:
    """What `sh -x install.sh --install` showed until its end, or until the power went.

    Attributes:
        lines: Of the trace and of its output.
        times_s: When each of them came.
        is_cut: Whether the power went before it ended.
    """

    lines: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    is_cut: bool = False

    def between_s(self, first: str, last: str) -> float:
        """From the first line that holds the one to the first that holds the other."""
        start, end = (
            next(
                time_s
                for line, time_s in zip(self.lines, self.times_s, strict=True)
                if text in line
            )
            for text in (first, last)
        )
        return end - start


def install_traced(running: RunningBoard, release: str, cut: Cut | None = None) -> Trace:
    """Run the install.sh of an unpacked release as root; take the power away in it, if told to."""
    trace = Trace()
    timers: list[threading.Timer] = []

    def hear(line: str) -> None:
        trace.times_s.append(time.monotonic())
        trace.lines.append(line)
        if cut is not None and not timers and cut.line in line:
            timers.append(threading.Timer(cut.after_s, running.power_cut))
            timers[0].start()

    command = f"exec sh -x {release}/install.sh --install 2>&1"
    with on_board.login(running, "root") as site:
        try:
            ended = site.connection.run(
                ["sh", "-c", command], deadline_s=on_board.DEADLINE_S, on_line=hear
            )
            assert ended.status == 0, trace.lines[-5:]
        except ConnectionFailed:
            if cut is None:
                raise
            trace.is_cut = True
        if timers:
            timers[0].join()
    return trace


def check_file_system(disk: Path, scratch: Path) -> None:
    """Replay the journal in a copy of a disk, as a boot does; then it must be without a fault.

    Where e2fsck is absent, the kernel of the next boot is all that looks at it.
    """
    system = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    e2fsck = shutil.which("e2fsck", path=system)
    if e2fsck is None:
        return
    copy = scratch / "copy.ext4"
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", disk, copy], check=True, timeout=120)
    try:
        subprocess.run([e2fsck, "-E", "journal_only", "-p", copy], check=False, timeout=120)
        # what a mount does besides the replay: files that were removed while they were open
        done = subprocess.run([e2fsck, "-f", "-p", copy], capture_output=True, timeout=120)
        assert done.returncode in (0, 1), done.stdout.decode()
    finally:
        copy.unlink()


def cuts(whole: Trace) -> list[Cut]:
    """Where to cut, by the trace of an update that was left in peace."""
    generator = random.Random(SEED)
    places = [
        (CURRENT, 4 * COMMAND_S),  # with the sync after it
        (COPY, whole.between_s(COPY, TEST)),
        (PRUNE, 3 * COMMAND_S),
        (BEGIN, whole.between_s(BEGIN, COPY)),
        (RENAME, 3 * COMMAND_S),
        (PREVIOUS, 4 * COMMAND_S),
        (CURRENT, 2 * COMMAND_S),
        (BEGIN, whole.between_s(BEGIN, END)),
    ]
    return [
        Cut(line=line, after_s=generator.uniform(0, width_s))
        for line, width_s in (places[number % len(places)] for number in range(CUTS))
    ]


def check_after_cut(running: RunningBoard, old: str, new: str) -> bool:
    """What must be true when the power is back; whether the new release is current."""
    with on_board.login(running, "root") as site:
        assert site.shell("cat /sys/fs/ext4/vda/errors_count").stdout == "0\n"
        assert "recovery complete" in site.shell("dmesg").stdout
        current = site.current(PREFIX)
        assert current in (old, new)
        site.self_test(PREFIX)
    return bool(current == new)


def check_mended(running: RunningBoard, place: str, old: str, new: str) -> None:
    """The same installation once more, with no remains and no lock in its way."""
    with on_board.login(running, "root") as site:
        done = site.shell(f"sh {place}/install.sh --install")
        assert done.status == 0, done
        assert site.current(PREFIX) == new
        assert site.shell(f"readlink {PREFIX}/previous").stdout == f"releases/{old}\n"
        left = set(site.shell(f"ls -A {PREFIX} {PREFIX}/releases").stdout.split())
        assert not {name for name in left if name.startswith(".")} - {".lock"}, left


def test_a_power_cut_leaves_the_old_release_or_the_new_one(
    lab: LabImage, built: Path, tmp_path: Path
) -> None:
    bundles = [
        on_board.changed_bundle(built, tmp_path / f"{number}", note=f"release {number}")
        for number in range(CUTS + 2)
    ]
    board, disk = lab_board("raspberry-pi-4"), new_disk(lab, tmp_path / "disk.ext4")
    with boot(board, lab, disk=disk) as running:
        with on_board.login(running, "root") as site:
            places = [site.unpack(path, "/root") for path in bundles]
        install_traced(running, places[0])
        planned = cuts(install_traced(running, places[1]))
        trace = install_traced(running, places[2], planned[0])
    outcomes: Counter[str] = Counter()
    for number, (cut, following) in enumerate(zip(planned, [*planned[1:], None], strict=True)):
        check_file_system(disk, tmp_path)
        old, new = (on_board.release_of(path) for path in bundles[number + 1 : number + 3])
        with boot(board, lab, disk=disk) as running:
            is_new = check_after_cut(running, old, new)
            check_mended(running, places[number + 2], old, new)
            outcomes["new" if is_new else "old"] += 1
            outcomes["within" if trace.is_cut else "after the end"] += 1
            print(f"{number + 1}: {cut} at {trace.lines[-1]!r}: {outcomes}", flush=True)
            if following is not None:
                trace = install_traced(running, places[number + 3], following)
    assert outcomes["within"] >= CUTS // 2, outcomes
