"""Sensors: what a board says of its clocks, heat and load while it works (runs on Python 3.6)."""

import glob
import os
import re
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

_CPUS = "/sys/devices/system/cpu/cpu[0-9]*"
_ZONES = "/sys/class/thermal/thermal_zone[0-9]*"
_COOLING = "/sys/class/thermal/cooling_device[0-9]*"
_FIRMWARE = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_COMMAND_S = 5.0
_PI_LIMIT_MILLI_C = 80000
"""Raspberry Pi documentation, "Frequency management and thermal control": from 80 degrees on the
cores are slowed down. Its kernel names only the trip point at which it shuts down."""
_TRIPS = ("passive", "hot", "critical")
"""Kernel, driver-api/thermal/sysfs-api: `active` ones only start a fan."""


class Sensors:
    """Reads the files below a root, which a test may put elsewhere. What is absent is left out."""

    def __init__(
        self,
        root: str = "",
        vcgencmd: Sequence[str] = ("vcgencmd", "get_throttled"),
        clock_ns: Optional[Callable[[], int]] = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._vcgencmd = list(vcgencmd)
        self._clock_ns = clock_ns or (lambda: int(time.perf_counter() * 1e9))
        self._wall_s = wall_s
        self._ticks = float(os.sysconf("SC_CLK_TCK"))
        self._has_flags = True
        self._own = [os.getpid()]

    def board(self) -> Dict[str, Any]:
        """What does not change while a board works; finds our own processes too.

        Those are this one, what it started, and the one that watches over it.

        `is_pinned`: every CPU's least allowed frequency is its most allowed one (jetson_clocks).
        `limit_milli_c`: per thermal zone, where the board begins to slow down, or to shut down.
        """
        self._own = [os.getpid(), os.getppid(), *self._children(os.getpid())]
        ranges = [
            (self._number(cpu + "scaling_min_freq"), self._number(cpu + "scaling_max_freq"))
            for cpu in self._cpus()
        ]
        return {
            "cores": os.cpu_count() or 1,
            "is_pinned": bool(ranges) and all(low and low == high for low, high in ranges),
            "khz_range": self._khz_range(),
            "limit_milli_c": self._limits(),
            "machine": self._machine(),
        }

    def sample(self) -> Dict[str, Any]:
        """One look: clocks, frequencies, temperatures, throttling, load.

        `at_ns` is by the clock of the queries, `wall_s` by that of the day; `busy_s`, `steal_s` and
        `own_s` are CPU seconds since boot of all CPUs, what the hypervisor took, and our own.
        """
        at_ns, wall_s = self._clocks()
        found: Dict[str, Any] = {"at_ns": at_ns, "wall_s": wall_s}
        found["governor"] = self._each(self._text, "scaling_governor")
        found["khz"] = self._each(self._number, "scaling_cur_freq")
        found["milli_c"] = self._zones("temp")
        found["throttled"] = self._flags()
        found["cooling"] = self._cooling()
        found["throttle_count"] = self._throttle_count()
        found["load"] = self._load()
        found.update(self._times())
        return found

    def _clocks(self) -> Sequence[float]:
        """Both clocks at one moment: of three tries the one that took least."""
        tries = []
        for _ in range(3):
            before = self._clock_ns()
            wall = self._wall_s()
            after = self._clock_ns()
            tries.append((after - before, (before + after) // 2, wall))
        _, at_ns, wall_s = min(tries)
        return at_ns, wall_s

    def _cpus(self) -> List[str]:
        return [path + "/cpufreq/" for path in self._paths(_CPUS + "/cpufreq", "/cpufreq")]

    def _each(self, read: Callable[[str], Any], name: str) -> Dict[str, Any]:
        values = {}
        for cpu in self._cpus():
            value = read(cpu + name)
            if value is not None:
                values[cpu.split("/")[-3]] = value
        return values

    def _khz_range(self) -> Optional[List[int]]:
        ends = [
            self._number(cpu + name)
            for cpu in self._cpus()
            for name in ("cpuinfo_min_freq", "cpuinfo_max_freq")
        ]
        known = [end for end in ends if end is not None]
        return [min(known), max(known)] if known else None

    def _zones(self, name: str) -> Dict[str, int]:
        """By "thermal_zone0 cpu-thermal": two zones may have one type."""
        values = {}
        for zone in self._paths(_ZONES):
            value = self._number(zone + "/" + name)
            if value is not None:
                values[self._zone_name(zone)] = value
        return values

    def _zone_name(self, zone: str) -> str:
        return "{} {}".format(zone.rsplit("/", 1)[1], self._text(zone + "/type") or "").strip()

    def _limits(self) -> Dict[str, int]:
        limits = {}
        is_pi = self._flags() is not None
        for zone in self._paths(_ZONES):
            ends = [_PI_LIMIT_MILLI_C] if is_pi else []
            for path in glob.glob(glob.escape(zone) + "/trip_point_*_type"):
                end = self._number(path[: -len("type")] + "temp")
                if self._text(path) in _TRIPS and end is not None and end > 0:
                    ends.append(end)
            if ends:
                limits[self._zone_name(zone)] = min(ends)
        return limits

    def _flags(self) -> Optional[int]:
        """Flags of a Raspberry Pi; bits 0-3 are now, 16-19 since boot. None of another board.

        The file first: a program that starts once in a second disturbs what is timed.
        """
        text = self._text(self._root + _FIRMWARE)
        if text is None and self._has_flags:
            text = self._ask_firmware()
            self._has_flags = text is not None
        try:
            return None if text is None else int(text.replace("throttled=", ""), 16)
        except ValueError:
            return None

    def _ask_firmware(self) -> Optional[str]:
        try:
            done = subprocess.run(
                self._vcgencmd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_COMMAND_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        text = done.stdout.decode("ascii", "replace").strip()
        return text if text.startswith("throttled=") else None

    def _cooling(self) -> int:
        """Sum of the steps by which CPUs are slowed down for heat; fans do not count."""
        total = 0
        for device in self._paths(_COOLING):
            kind = self._text(device + "/type") or ""
            if "cpufreq" in kind or kind == "Processor":
                total += self._number(device + "/cur_state") or 0
        return total

    def _throttle_count(self) -> int:
        """How often x86 cores were slowed down for heat since boot."""
        paths = self._paths(_CPUS + "/thermal_throttle/*_throttle_count")
        return sum(self._number(path) or 0 for path in paths)

    def _load(self) -> Optional[float]:
        text = self._text(self._root + "/proc/loadavg")
        return float(text.split()[0]) if text else None

    def _times(self) -> Dict[str, float]:
        """CPU seconds: proc(5), fields of `cpu` in /proc/stat and of /proc/PID/stat."""
        text = self._text(self._root + "/proc/stat") or ""
        found = re.search(r"^cpu +(.*)$", text, re.MULTILINE)
        if found is None:
            return {}
        user, nice, system, _, _, irq, softirq, steal = map(int, found.group(1).split()[:8])
        busy = user + nice + system + irq + softirq
        own = sum(self._own_ticks(pid) for pid in self._own)
        return {
            "busy_s": busy / self._ticks,
            "steal_s": steal / self._ticks,
            "own_s": own / self._ticks,
        }

    def _own_ticks(self, pid: int) -> int:
        fields = self._process(pid)
        return sum(map(int, fields[11:15])) if fields else 0

    def _children(self, parent: int) -> List[int]:
        """Processes below one: a runtime that is a program runs in one of them."""
        below: Dict[int, List[int]] = {}
        for path in self._paths("/proc/[0-9]*"):
            fields = self._process(int(path.rsplit("/", 1)[1]))
            if fields:
                below.setdefault(int(fields[1]), []).append(int(path.rsplit("/", 1)[1]))
        found, open_ends = [], [parent]
        while open_ends:
            children = below.get(open_ends.pop(), [])
            found += children
            open_ends += children
        return found

    def _process(self, pid: int) -> List[str]:
        """Fields of /proc/PID/stat from the state on: the name before may hold anything."""
        text = self._text("{}/proc/{}/stat".format(self._root, pid))
        return text.rpartition(")")[2].split() if text else []

    def _machine(self) -> str:
        """What the device tree says that this is: "linux,dummy-virt" is QEMU's own board."""
        text = self._text(self._root + "/proc/device-tree/compatible") or ""
        return text.replace("\0", " ").strip()

    def _paths(self, pattern: str, cut: str = "") -> List[str]:
        paths = glob.glob(glob.escape(self._root) + pattern)
        return sorted(path[: len(path) - len(cut)] for path in paths)

    def _number(self, path: str) -> Optional[int]:
        text = self._text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def _text(self, path: str) -> Optional[str]:
        """None also of a file that is there and cannot be read now, as of a GPU that is off."""
        try:
            with open(path, errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None
