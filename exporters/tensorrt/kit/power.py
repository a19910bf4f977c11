"""Power: a Jetson's power mode, and what tegrastats says while something runs.

The formats are those that NVIDIA's "Jetson Linux Developer Guide" shows (nvpmodel, tegrastats
utility) for L4T 32 to 38; no board was at hand.
"""

import re
import subprocess
import threading
from typing import Dict, List, NamedTuple, Optional

_COMMAND_S = 10.0
_INTERVAL_MS = 100
_RAIL = re.compile(r"\b([A-Z][A-Za-z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")
"""`VDD_IN 4940mW/4900mW`, before L4T 35 `POM_5V_IN 2532/2532`: now and on average."""
_ZONE = re.compile(r"\b([A-Za-z][A-Za-z0-9_.-]*)@(-?[\d.]+)C\b")
_NO_SENSOR_C = -200.0
"""tegrastats writes -256C for a zone that is off."""


class PowerMode(NamedTuple):
    """Name and number of the mode; the numbers mean something else on each board."""

    name: str
    number: Optional[int]


class Sample(NamedTuple):
    """One line of tegrastats.

    Attributes:
        ram_mb: Used.
        gpu_percent: Load of the GPU; None where it is not told.
        rails_mw: Power of each rail at that moment.
        temperature_c: Of each zone.
    """

    ram_mb: Optional[int]
    gpu_percent: Optional[int]
    rails_mw: Dict[str, int]
    temperature_c: Dict[str, float]


def power_mode_from_text(text: str) -> Optional[PowerMode]:
    """Read `nvpmodel -q`: `NV Power Mode: 15W`, and the number on the next line."""
    match = re.search(r"^NV Power Mode: *(\S.*?)\s*$(?:\s*^(\d+)\s*$)?", text, re.MULTILINE)
    if match is None:
        return None
    return PowerMode(match.group(1), int(match.group(2)) if match.group(2) else None)


def sample_from_line(line: str) -> Optional[Sample]:
    """Read a line of tegrastats; None of another line."""
    ram = re.search(r"\bRAM (\d+)/\d+MB", line)
    if ram is None:
        return None
    gpu = re.search(r"\bGR3D_FREQ (\d+)%", line)
    return Sample(
        ram_mb=int(ram.group(1)),
        gpu_percent=None if gpu is None else int(gpu.group(1)),
        rails_mw={name: int(now) for name, now, _ in _RAIL.findall(line)},
        temperature_c={
            name: float(value) for name, value in _ZONE.findall(line) if float(value) > _NO_SENSOR_C
        },
    )


def summary_of(samples: List[Sample]) -> Optional[Dict[str, object]]:
    """Means and extremes; None of no samples."""
    if not samples:
        return None
    rails = sorted({name for sample in samples for name in sample.rails_mw})
    zones = sorted({name for sample in samples for name in sample.temperature_c})
    loads = [sample.gpu_percent for sample in samples if sample.gpu_percent is not None]
    return {
        "samples": len(samples),
        "rails_mean_mw": {
            name: round(_mean([one.rails_mw[name] for one in samples if name in one.rails_mw]))
            for name in rails
        },
        "temperature_max_c": {
            name: max(one.temperature_c[name] for one in samples if name in one.temperature_c)
            for name in zones
        },
        "gpu_mean_percent": round(_mean(loads)) if loads else None,
        "ram_max_mb": max(sample.ram_mb or 0 for sample in samples),
    }


def ask_power_mode(program: str = "nvpmodel") -> Optional[PowerMode]:
    """The mode now; None where there is no nvpmodel, or it does not say."""
    try:
        found = subprocess.run(
            [program, "-q"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return power_mode_from_text(found.stdout.decode("utf-8", "replace"))


class Tegrastats:
    """Runs tegrastats beside something; where there is none, there are no samples."""

    def __init__(self, program: str = "tegrastats") -> None:
        self.samples: List[Sample] = []
        self._program = program
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "Tegrastats":
        try:
            self._process = subprocess.Popen(
                [self._program, "--interval", str(_INTERVAL_MS)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return self
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is None or self._thread is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_COMMAND_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=_COMMAND_S)

    def _read(self) -> None:
        assert self._process is not None  # started with it
        assert self._process.stdout is not None  # a pipe
        for line in self._process.stdout:
            sample = sample_from_line(line.decode("utf-8", "replace"))
            if sample is not None:
                self.samples.append(sample)


def _mean(values: List[int]) -> float:
    return sum(values) / len(values)
