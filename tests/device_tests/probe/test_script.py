from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import pytest

from edgeship.device_tests.probe.assembly import facts_from_sections
from edgeship.device_tests.probe.described import Described
from edgeship.device_tests.probe.script import (
    MARK,
    ProbePaths,
    probe_script,
    sections_from_text,
)
from edgeship.targets.board_facts import BoardFacts

SHELLS: Final = (("dash",), ("busybox", "sh"), ("sh",))
CPUINFO: Final = """\
processor\t: 0
Features\t: fp asimd crc32
CPU implementer\t: 0x41
CPU part\t: 0xd08
"""
FILES: Final = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/cpuinfo": CPUINFO,
    "proc/meminfo": "MemTotal:  1000 kB\nMemAvailable:  600 kB\n",
    "proc/smaps": "55d0-55e0 r--p\nSize: 4 kB\nKernelPageSize:       16 kB\nKernelPageSize: 4 kB\n",
    "etc/os-release": 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian"',
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1\n",
    "cpu/online": "0-3\n",
    "cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    "cpu/cpu0/cpufreq/cpuinfo_min_freq": "600000\n",
    "cpu/cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
    "cpu/cpufreq/nothing": "",
    "thermal/thermal_zone0/temp": "48312\n",
    "thermal/thermal_zone0/type": "cpu-thermal\n",
    "thermal/thermal_zone1/type": "without a sensor\n",
    "lib/aarch64-linux-gnu/libstdc++.so.6": "\x7fELF\0GLIBCXX_3.4.9\0\1GLIBCXX_3.4.28\0GLIBCXX_X",
    "lib/libstdc++.so.6": "\0GLIBCXX_3.4.33\0",
    "firmware/get_throttled": "50000\n",
}
PROGRAMS: Final = {
    "uname": "case $1 in -m) echo aarch64 ;; -r) echo 6.1.0 ;; esac",
    "getconf": "case $1 in LONG*) echo 64 ;; GNU*) echo glibc 2.36 ;; *) exit 1 ;; esac",
    "ldd": "echo 'ldd (Debian GLIBC 2.36-9) 2.36'",
    "df": 'echo Filesystem; echo "/dev/root 100 40 60 40% $2"',
    "dpkg_query": "echo nvidia-jetpack 6.1+b123 installed; echo 'no packages found' >&2; exit 1",
    "vcgencmd": 'case $1 in get_throttled) echo "throttled=0x5" ;; *) echo "temp=50.0\'C" ;; esac',
    "nvpmodel": 'read -r answer; echo "NV Power Mode: MAXN"; echo 0',
    "trtexec": "exit 0",
}


def board(root: Path) -> ProbePaths:
    """A root of its own, whose paths need quoting."""
    root = root / "a 'board'"
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    for name, body in PROGRAMS.items():
        path = root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return ProbePaths(
        device_tree=str(root / "proc/device-tree"),
        dmi=str(root / "dmi"),
        cpuinfo=str(root / "proc/cpuinfo"),
        meminfo=str(root / "proc/meminfo"),
        smaps=str(root / "proc/smaps"),
        os_release=str(root / "etc/os-release"),
        nv_tegra_release=str(root / "etc/nv_tegra_release"),
        cpus=str(root / "cpu"),
        thermal=str(root / "thermal"),
        libraries=str(root / "lib"),
        firmware_throttled=str(root / "firmware/get_throttled"),
        **{name: str(root / "bin" / name) for name in PROGRAMS},
    )


def nowhere(root: Path) -> ProbePaths:
    return ProbePaths(**{item.name: str(root / "none" / item.name) for item in fields(ProbePaths)})


def ask(paths: ProbePaths, shell: tuple[str, ...] = ("sh",)) -> BoardFacts:
    tools = f"{os.environ.get('EDGESHIP_LAB_TOOLS', '')}/bin"
    program = shutil.which(shell[0]) or shutil.which(shell[0], path=tools)
    if program is None:
        pytest.skip(f"NOT TESTED with {shell[0]}: it is not on this machine")
    ended = subprocess.run(
        [program, *shell[1:], "-c", probe_script(paths, runs="/")],
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    sections = sections_from_text(ended.stdout.decode())
    return facts_from_sections(sections, Described(), at="")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_shell_reads_the_whole_board(tmp_path: Path, shell: tuple[str, ...]) -> None:
    found = ask(board(tmp_path), shell)
    assert found.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert found.compatible == ("raspberrypi,4-model-b", "brcm,bcm2711")
    assert (found.arch, found.kernel, found.cpu) == ("aarch64", "6.1.0", "Cortex-A72")
    assert (found.cores, found.features) == (4, ("fp", "asimd", "crc32"))
    assert (found.memory_bytes, found.memory_available_bytes) == (1024000, 614400)
    assert found.page_size == 16384
    assert found.disk_free_bytes == 60 * 1024
    assert (found.os, found.os_id) == ("Debian", "debian bookworm")
    assert (found.glibc, found.glibcxx) == ("2.36", "3.4.28")
    assert (found.governor, found.frequency_khz) == (("ondemand",), (600000, 600000, 1500000))
    assert found.temperature_c == (("cpu-thermal", 48.312),)
    assert found.throttled == 5
    assert (found.l4t, found.jetpack, found.power_mode) == ("36.4.0", "6.1+b123", "MAXN")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_board_without_any_of_it_ends_well(tmp_path: Path, shell: tuple[str, ...]) -> None:
    assert ask(nowhere(tmp_path), shell) == BoardFacts(at="")


def test_firmware_says_the_flags_where_vcgencmd_may_not(tmp_path: Path) -> None:
    paths = board(tmp_path)
    program = Path(paths.vcgencmd)
    program.write_text('#!/bin/sh\necho "Can\'t open device file: /dev/vcio" >&2\nexit 255\n')
    assert ask(paths).throttled == 0x50000
    found = ask(replace(paths, firmware_throttled="/none"))
    assert found.throttled is None
    assert "/dev/vcio" in found.notes[0]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="reads /proc and /sys")
def test_this_machine_is_as_python_sees_it() -> None:
    found = ask(ProbePaths())
    assert found.arch == os.uname().machine
    assert found.kernel == os.uname().release
    assert found.page_size == os.sysconf("SC_PAGE_SIZE")
    assert found.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.cores == os.sysconf("SC_NPROCESSORS_ONLN")
    if found.glibc is not None:
        assert f"glibc {found.glibc}" == os.confstr("CS_GNU_LIBC_VERSION")


def test_output_that_was_cut_is_no_answer() -> None:
    text = f"\n{MARK}: model\nPi\n\n{MARK}: kernel\n6.1\n"
    with pytest.raises(ValueError, match="end"):
        sections_from_text(text)
    assert sections_from_text(f"{text}{MARK}: end\n") == {"model": "Pi", "kernel": "6.1", "end": ""}
