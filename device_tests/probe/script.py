"""Script: the one shell script that asks a board everything, and the paths that it reads."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Final

MARK: Final = "=-= edgeship probe"
"""Begins the line before each section; no file of a board has such a line."""


@dataclass(frozen=True, kw_only=True)
class ProbePaths:
    """Files, directories and programs that are asked; each may be absent on a board.

    Attributes:
        device_tree: With `model` and `compatible`, NUL-terminated.
        dmi: `sys_vendor` and `product_name` of machines with a BIOS.
        cpus: `online`, and `cpu<n>/cpufreq/`.
        thermal: `thermal_zone<n>/`.
        smaps: Says the kernel's page size, where no getconf does.
        libraries: Where the directories of libraries are.
        firmware_throttled: The flags of vcgencmd in hexadecimal, which some kernels of Raspberry
            Pi OS offer to everybody (drivers/firmware/raspberrypi.c).
    """

    device_tree: str = "/proc/device-tree"
    dmi: str = "/sys/class/dmi/id"
    cpuinfo: str = "/proc/cpuinfo"
    meminfo: str = "/proc/meminfo"
    smaps: str = "/proc/self/smaps"
    os_release: str = "/etc/os-release"
    nv_tegra_release: str = "/etc/nv_tegra_release"
    cpus: str = "/sys/devices/system/cpu"
    thermal: str = "/sys/class/thermal"
    libraries: str = "/usr/lib"
    firmware_throttled: str = "/sys/devices/platform/soc/soc:firmware/get_throttled"
    uname: str = "uname"
    getconf: str = "getconf"
    ldd: str = "ldd"
    df: str = "df"
    dpkg_query: str = "dpkg-query"
    vcgencmd: str = "vcgencmd"
    nvpmodel: str = "nvpmodel"
    trtexec: str = "trtexec"


# dash and the ash of busybox run this. `read` is built in: a board with twelve cores is not asked
# by sixty processes. vcgencmd was in /opt/vc/bin until Raspberry Pi OS 11, trtexec still is
# outside of PATH.
_SCRIPT: Final = r"""
LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/vc/bin:/usr/src/tensorrt/bin"
export LC_ALL PATH
exec </dev/null

section() { printf '\n%s: %s\n' "$mark" "$1"; }
show() {
  section "$1"
  if [ -r "$2" ]; then tr '\000' '\n' <"$2" 2>/dev/null; fi
}
ask() {
  section "$1"
  shift
  if command -v "$1" >/dev/null 2>&1; then "$@" 2>&1; fi
}
value_of() {
  value=
  if [ -r "$1" ]; then { read -r value <"$1"; } 2>/dev/null; fi
  printf '%s' "${value:--}"
}

show model "$device_tree/model"
show compatible "$device_tree/compatible"
show vendor "$dmi/sys_vendor"
show product "$dmi/product_name"
ask machine "$uname" -m
ask kernel "$uname" -r
ask long_bit "$getconf" LONG_BIT
show cpuinfo "$cpuinfo"
show online "$cpus/online"
show meminfo "$meminfo"
ask page_size "$getconf" PAGESIZE
section kernel_page_size
if [ -r "$smaps" ]; then sed -n '/^KernelPageSize/{p;q;}' "$smaps" 2>/dev/null; fi
ask disk "$df" -Pk "$runs"
show os_release "$os_release"
ask glibc "$getconf" GNU_LIBC_VERSION
ask ldd "$ldd" --version

section glibcxx
machine=$("$uname" -m 2>/dev/null)
for directory in "$libraries/$machine-linux-gnu" "$libraries"/*-linux-gnu* \
  "${libraries}64" "$libraries"; do
  if [ -r "$directory/libstdc++.so.6" ]; then
    tr -cs 'A-Za-z0-9_.' '\n' <"$directory/libstdc++.so.6" | grep '^GLIBCXX_[0-9]' | sort -u
    break
  fi
done

section frequency
for cpu in "$cpus"/cpu[0-9]*; do
  if [ -r "$cpu/cpufreq/scaling_governor" ]; then
    printf '%s' "${cpu##*/}"
    for key in scaling_governor scaling_cur_freq cpuinfo_min_freq cpuinfo_max_freq \
      scaling_max_freq; do
      printf ' %s' "$(value_of "$cpu/cpufreq/$key")"
    done
    printf '\n'
  fi
done
section thermal
for zone in "$thermal"/thermal_zone[0-9]*; do
  if [ -r "$zone/temp" ]; then
    printf '%s %s\n' "$(value_of "$zone/temp")" "$(value_of "$zone/type")"
  fi
done

section throttled
answer=
if command -v "$vcgencmd" >/dev/null 2>&1; then answer=$("$vcgencmd" get_throttled 2>&1); fi
case $answer in
  throttled=*) ;;
  *) if [ -r "$firmware_throttled" ]; then
    answer=throttled=0x$(value_of "$firmware_throttled")
  fi ;;
esac
printf '%s\n' "$answer"
ask measured_temperature "$vcgencmd" measure_temp
show nv_tegra_release "$nv_tegra_release"
section packages
if command -v "$dpkg_query" >/dev/null 2>&1; then
  "$dpkg_query" -W -f '${Package} ${Version} ${db:Status-Status}\n' \
    nvidia-jetpack nvidia-l4t-core 'libnvinfer[0-9]*' 2>/dev/null
fi
ask power_mode "$nvpmodel" -q
section trtexec
command -v "$trtexec" 2>/dev/null
section end
"""


def probe_script(paths: ProbePaths, *, runs: str) -> str:
    """The script for `sh -c`; it changes nothing on the board.

    Args:
        paths: What it asks.
        runs: Existing directory whose free space is told.
    """
    values = {**asdict(paths), "runs": runs, "mark": MARK}
    assignments = (f"{name}={shlex.quote(value)}" for name, value in values.items())
    return "\n".join(assignments) + _SCRIPT


def sections_from_text(text: str) -> dict[str, str]:
    """What the script printed, by section, without empty lines at either end of one.

    Raises:
        ValueError: The last section is not there: the script did not run to its end.
    """
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        before, mark, name = line.partition(f"{MARK}: ")
        if mark and not before:
            lines = sections.setdefault(name, [])
        else:
            lines.append(line)
    if "end" not in sections:
        message = "the script did not run to its end"
        raise ValueError(message)
    return {name: "\n".join(found).strip("\n") for name, found in sections.items()}
