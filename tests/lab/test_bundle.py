from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import boot
from edgeship.device_tests.lab.image import LabImage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

on_board = SimpleNamespace(**run_path(str(Path(__file__).parent / "bundle_board.py")))
PREFIX = "/opt/edgeship/bright"
MIB = 1 << 20


@pytest.mark.parametrize(
    ("user", "prefix"),
    [("root", PREFIX), ("edgeship", "/home/edgeship/.local/share/edgeship/bright")],
)
def test_a_release_is_installed_beside_another_and_rolled_back_from(
    lab: LabImage, built: Path, tmp_path: Path, user: str, prefix: str
) -> None:
    paths = [
        on_board.bundle_of(built, tmp_path / "first", "onnx-int8"),
        on_board.bundle_of(built, tmp_path / "second", "onnx-int8", "onnx-fp32"),
    ]
    first, second = (on_board.release_of(path) for path in paths)
    with boot(lab_board("raspberry-pi-4"), lab) as running, on_board.login(running, user) as site:
        for path in paths:
            place = site.unpack(path, "uploads")
            checked = site.shell(f"sh {place}/install.sh --check")
            assert checked.status == 0, checked
            assert site.current(prefix) == (None if path == paths[0] else first)
            done = site.shell(f"sh {place}/install.sh --install")
            assert done.status == 0, done
            assert done.stderr.count("the golden pack matches in onnxruntime 1.31.1") == (
                1 if path == paths[0] else 2
            )
            assert site.current(prefix) == on_board.release_of(path)

        assert site.shell("rm -r uploads").status == 0
        told = site.shell(f"sh {prefix}/current/install.sh --status")
        assert f"current: {second}\nprevious: {first}\n" in told.stdout
        assert told.stdout.count(": whole") == 2
        done = site.shell(f"sh {prefix}/current/install.sh --rollback")
        assert done.status == 0, done
        assert site.current(prefix) == first
        assert site.shell(f"readlink {prefix}/previous").stdout == f"releases/{second}\n"
        owners = site.shell(f"find {prefix} -printf '%u\\n' | sort -u").stdout
        assert owners == f"{user}\n"


# A Python without site-packages, and one that has numpy alone: `-S` leaves out the image's .pth
BARE = """\
mkdir -p numpy-alone && ln -s /opt/rt/numpy /opt/rt/numpy.libs numpy-alone/
printf '#!/bin/sh\\nexec /usr/bin/python3 -S "$@"\\n' >bare
printf '#!/bin/sh\\nPYTHONPATH=%s exec /usr/bin/python3 -S "$@"\\n' "$PWD/numpy-alone" >numpy-only
chmod +x bare numpy-only && touch mark
"""
WRITTEN = "find / -xdev -newer mark ! -path '/proc/*' ! -path /tmp -print"


def test_what_a_board_lacks_is_told_by_a_check_that_changes_nothing(
    lab: LabImage, built: Path, tmp_path: Path
) -> None:
    path = on_board.bundle_of(built, tmp_path / "small", "onnx-int8")
    greedy = on_board.changed_bundle(built, tmp_path / "greedy", memory_bytes=512 * MIB)
    board = replace(lab_board("cortex-a53"), memory_bytes=384 * MIB)
    with boot(board, lab) as running, on_board.login(running, "root") as site:
        small_place, greedy_place = (site.unpack(each, "/root") for each in (path, greedy))
        assert site.shell(BARE).status == 0
        for place, options, code, words in (
            (greedy_place, "", 9, ("kB of memory", "are free")),
            (small_place, "--python ./bare", 8, ("cannot import numpy", "no runtime")),
            (small_place, "--python ./numpy-only", 8, ("no runtime of onnxruntime",)),
            (small_place, "--python no-such", 8, ("no no-such: install Python",)),
            (greedy_place, "--python ./bare", 8, ("cannot import", "no runtime", "of memory")),
        ):
            for action in ("--check", "--install")[: 2 if code == 9 else 1]:
                said = site.shell(f"sh {place}/install.sh {action} {options}")
                assert said.status == code, said
                assert all(word in said.stderr for word in words), said.stderr
        assert site.shell(f"sh {small_place}/install.sh --check").status == 0
        assert site.shell(WRITTEN).stdout == ""
        assert site.current(PREFIX) is None
        assert site.shell(f"mkdir /opt/edgeship; {WRITTEN}").stdout == "/opt\n/opt/edgeship\n"
