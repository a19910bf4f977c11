"""Assembly: the facts of a board out of what its sections and its Python say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeship.device_tests.probe.cpu import (
    cores_from_online,
    cpu_from_cpuinfo,
    frequency_from_text,
)
from edgeship.device_tests.probe.described import Described
from edgeship.device_tests.probe.jetson import (
    jetson_from_text,
    power_mode_from_text,
    sm_from_compatible,
)
from edgeship.device_tests.probe.raspberry import temperature_from_text, throttled_from_text
from edgeship.device_tests.probe.system import (
    bytes_from_meminfo,
    free_from_df,
    glibc_from_text,
    is_musl,
    newest_glibcxx,
    os_from_release,
    page_size_from_text,
    zones_from_text,
)
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.target import Runtime

_USERLANDS_OF_32_BITS = {"aarch64": "armv7l", "x86_64": "i686"}


def facts_from_sections(
    sections: Mapping[str, str], described: Described, *, at: str
) -> BoardFacts:
    """Read every section of the script; what is not there is None, or empty.

    Args:
        sections: By name; all that the script names.
        described: Python and the runtimes that it found.
        at: When the board was asked, in UTC (RFC 3339).
    """
    cpu = cpu_from_cpuinfo(sections["cpuinfo"])
    frequency = frequency_from_text(sections["frequency"])
    jetson = jetson_from_text(sections["nv_tegra_release"], sections["packages"])
    compatible = tuple(sections["compatible"].split())
    os, os_id = os_from_release(sections["os_release"])
    glibc = glibc_from_text(sections["glibc"], sections["ldd"])
    return BoardFacts(
        at=at,
        model=_model(sections),
        compatible=compatible,
        arch=_arch(sections),
        cpu=cpu.name,
        features=cpu.features,
        cores=cores_from_online(sections["online"]) or cpu.cores,
        memory_bytes=bytes_from_meminfo(sections["meminfo"], "MemTotal"),
        memory_available_bytes=bytes_from_meminfo(sections["meminfo"], "MemAvailable"),
        page_size=page_size_from_text(sections["page_size"], sections["kernel_page_size"]),
        disk_free_bytes=free_from_df(sections["disk"]),
        os=os,
        os_id=os_id,
        kernel=_first_line(sections["kernel"]),
        glibc=glibc or described.glibc,
        glibcxx=newest_glibcxx(sections["glibcxx"]),
        python=described.python,
        numpy=described.numpy,
        runtimes=(*described.runtimes, *_tensorrt(jetson.tensorrt, sections, described)),
        l4t=jetson.l4t,
        jetpack=jetson.jetpack,
        tensorrt=jetson.tensorrt,
        sm=sm_from_compatible(compatible),
        power_mode=power_mode_from_text(sections["power_mode"]),
        governor=frequency.governors,
        frequency_khz=frequency.khz,
        temperature_c=_temperatures(sections),
        throttled=throttled_from_text(sections["throttled"]),
        is_emulated=_is_emulated(sections, compatible),
        notes=(*_notes(sections), *jetson.notes, *frequency.notes, *described.notes),
    )


def _model(sections: Mapping[str, str]) -> str | None:
    """Of the device tree, else of the BIOS."""
    model = _first_line(sections["model"])
    if model is not None:
        return model
    parts = (_first_line(sections["vendor"]), _first_line(sections["product"]))
    return " ".join(part for part in parts if part) or None


def _arch(sections: Mapping[str, str]) -> str | None:
    """Machine of the programs: Raspberry Pi OS of 32 bits boots a kernel of 64."""
    machine = _first_line(sections["machine"])
    if machine is not None and sections["long_bit"].strip() == "32":
        return _USERLANDS_OF_32_BITS.get(machine, machine)
    return machine


def _temperatures(sections: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    zones = zones_from_text(sections["thermal"])
    measured = temperature_from_text(sections["measured_temperature"])
    return zones if zones or measured is None else (("vcgencmd", measured),)


def _tensorrt(
    version: str | None, sections: Mapping[str, str], described: Described
) -> Iterator[FoundRuntime]:
    """The library as a runtime, which trtexec runs engines in, unless Python has told of it."""
    if version is None or any(found.name == Runtime.TENSORRT for found in described.runtimes):
        return
    path = _first_line(sections["trtexec"])
    yield FoundRuntime(
        name=str(Runtime.TENSORRT),
        version=version,
        kind="program",
        path=path,
        problem=None if path else "there is no trtexec (package libnvinfer-bin)",
    )


def _is_emulated(sections: Mapping[str, str], compatible: tuple[str, ...]) -> bool:
    """QEMU's machine "virt" has `linux,dummy-virt`; on x86 QEMU names itself as vendor or CPU."""
    if "linux,dummy-virt" in compatible:
        return True
    return "QEMU" in sections["vendor"] or "QEMU Virtual CPU" in sections["cpuinfo"]


def _notes(sections: Mapping[str, str]) -> Iterator[str]:
    machine, arch = _first_line(sections["machine"]), _arch(sections)
    if arch != machine:
        yield f"the kernel is {machine}, the programs are of 32 bits ({arch})"
    if is_musl(sections["ldd"]):
        yield "the C library is musl: no wheel for glibc loads here"
    answer = _first_line(sections["throttled"])
    if answer is not None and throttled_from_text(sections["throttled"]) is None:
        yield f"whether it is throttled is not known: vcgencmd says {answer!r}"
    power = sections["power_mode"].strip()
    if power and power_mode_from_text(power) is None:
        yield f"the power mode is not known: nvpmodel says {power.splitlines()[-1]!r}"
    if sections["disk"] and free_from_df(sections["disk"]) is None:
        yield f"free disk is not known: df says {sections['disk'].splitlines()[-1]!r}"


def _first_line(text: str) -> str | None:
    lines = text.strip().splitlines()
    return lines[0].strip() or None if lines else None
