"""CPU: names of cores, their features and frequencies, from what Linux says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_ARM: Final = 0x41
_NVIDIA: Final = 0x4E
_CORES: Final[Mapping[tuple[int, int], str]] = {
    (_ARM, 0xC07): "Cortex-A7",
    (_ARM, 0xD03): "Cortex-A53",
    (_ARM, 0xD04): "Cortex-A35",
    (_ARM, 0xD05): "Cortex-A55",
    (_ARM, 0xD07): "Cortex-A57",
    (_ARM, 0xD08): "Cortex-A72",
    (_ARM, 0xD09): "Cortex-A73",
    (_ARM, 0xD0A): "Cortex-A75",
    (_ARM, 0xD0B): "Cortex-A76",
    (_ARM, 0xD0C): "Neoverse-N1",
    (_ARM, 0xD0D): "Cortex-A77",
    (_ARM, 0xD40): "Neoverse-V1",
    (_ARM, 0xD41): "Cortex-A78",
    (_ARM, 0xD42): "Cortex-A78AE",
    (_ARM, 0xD44): "Cortex-X1",
    (_ARM, 0xD46): "Cortex-A510",
    (_ARM, 0xD47): "Cortex-A710",
    (_ARM, 0xD48): "Cortex-X2",
    (_ARM, 0xD49): "Neoverse-N2",
    (_ARM, 0xD4D): "Cortex-A715",
    (_ARM, 0xD4E): "Cortex-X3",
    (_ARM, 0xD4F): "Neoverse-V2",
    (_NVIDIA, 0x000): "Denver",
    (_NVIDIA, 0x003): "Denver 2",
    (_NVIDIA, 0x004): "Carmel",
}
"""By implementer and part of MIDR_EL1 (util-linux, sys-utils/lscpu-arm.c)."""


@dataclass(frozen=True, kw_only=True)
class CpuFacts:
    """Of /proc/cpuinfo: cores that differ are named side by side, features are those of all."""

    name: str | None
    features: tuple[str, ...]
    cores: int | None


@dataclass(frozen=True, kw_only=True)
class FrequencyFacts:
    """Of cpufreq.

    Attributes:
        governors: Without doubles, sorted.
        khz: Current, least and most of the first CPU that says all three.
        notes: Where the highest frequency is capped below what the CPU can do.
    """

    governors: tuple[str, ...]
    khz: tuple[int, int, int] | None
    notes: tuple[str, ...]


def cpu_from_cpuinfo(text: str) -> CpuFacts:
    """Read /proc/cpuinfo of ARM or x86; what it does not say is None or empty."""
    cores = [_keys(block) for block in re.split(r"\n\s*\n", text)]
    cores = [core for core in cores if "processor" in core and core["processor"].isdigit()]
    names = [name for core in cores if (name := _core_name(core)) is not None]
    features = [core.get("features", core.get("flags", "")).split() for core in cores]
    common = set(features[0]).intersection(*features) if features else set()
    return CpuFacts(
        name=" + ".join(dict.fromkeys(names)) or None,
        features=tuple(feature for feature in features[0] if feature in common) if cores else (),
        cores=len(cores) or None,
    )


def cores_from_online(text: str) -> int | None:
    """Number of CPUs in a list like "0-3,6" (/sys/devices/system/cpu/online)."""
    count = 0
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            return None
        count += int(match[2] or match[1]) - int(match[1]) + 1
    return count


def frequency_from_text(text: str) -> FrequencyFacts:
    """Read lines `cpu0 GOVERNOR CURRENT LEAST MOST CAP` in kHz; "-" is what was not readable."""
    rows = [words for line in text.splitlines() if len(words := line.split()) == 6]
    khz: tuple[int, int, int] | None = None
    caps: dict[str, None] = {}
    for name, _, *numbers in rows:
        if khz is None and all(number.isdigit() for number in numbers[:3]):
            khz = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
        most, cap = numbers[2:]
        if most.isdigit() and cap.isdigit() and int(cap) < int(most):
            caps[f"{name} is capped at {cap} of {most} kHz"] = None
    governors = {words[1] for words in rows if words[1] != "-"}
    return FrequencyFacts(governors=tuple(sorted(governors)), khz=khz, notes=tuple(caps))


def _keys(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _core_name(core: Mapping[str, str]) -> str | None:
    """ARM kernels write "ARMv8 Processor rev 1" as model name, which is no core's."""
    try:
        implementer, part = int(core["cpu implementer"], 16), int(core["cpu part"], 16)
    except (KeyError, ValueError):
        return core.get("model name")
    return _CORES.get((implementer, part), f"implementer {implementer:#x}, part {part:#x}")
