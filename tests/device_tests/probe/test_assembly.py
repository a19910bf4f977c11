from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from edgeship.device_tests.probe.assembly import facts_from_sections
from edgeship.device_tests.probe.described import Described
from edgeship.device_tests.probe.script import sections_from_text
from edgeship.targets.board_facts import BoardFacts, FoundRuntime

RECORDS: Final = Path(__file__).with_name("records")
AT: Final = "2026-11-22T10:00:00Z"


def sections(name: str, **changed: str) -> dict[str, str]:
    found = sections_from_text((RECORDS / f"{name}.txt").read_text())
    assert not changed.keys() - found.keys()
    return found | changed


def facts(name: str, described: Described | None = None, **changed: str) -> BoardFacts:
    return facts_from_sections(sections(name, **changed), described or Described(), at=AT)


def assert_facts(found: BoardFacts, expected: Mapping[str, object]) -> None:
    assert {key: getattr(found, key) for key in expected} == expected


def test_raspberry_pi_4() -> None:
    found = facts("raspberry-pi-4")
    assert_facts(
        found,
        {
            "at": AT,
            "model": "Raspberry Pi 4 Model B Rev 1.5",
            "compatible": ("raspberrypi,4-model-b", "brcm,bcm2711"),
            "arch": "aarch64",
            "cpu": "Cortex-A72",
            "features": ("fp", "asimd", "evtstrm", "crc32", "cpuid"),
            "cores": 4,
            "memory_bytes": 3885396 * 1024,
            "memory_available_bytes": 3407728 * 1024,
            "page_size": 4096,
            "disk_free_bytes": 24572060 * 1024,
            "os": "Debian GNU/Linux 12 (bookworm)",
            "os_id": "debian bookworm",
            "kernel": "6.1.0-rpi7-rpi-v8",
            "glibc": "2.36",
            "glibcxx": "3.4.30",
            "governor": ("ondemand",),
            "frequency_khz": (1800000, 600000, 1800000),
            "temperature_c": (("cpu-thermal", 48.686),),
            "throttled": 0x50005,
            "is_emulated": False,
            "notes": (),
        },
    )
    assert_facts(found, dict.fromkeys(("l4t", "jetpack", "tensorrt", "sm", "power_mode")))


def test_raspberry_pi_5_has_dotprod_and_large_pages() -> None:
    found = facts("raspberry-pi-5")
    assert_facts(
        found,
        {"cpu": "Cortex-A76", "page_size": 16384, "throttled": 0, "governor": ("performance",)},
    )
    assert {"asimddp", "asimdhp", "atomics"} <= set(found.features)


def test_jetson_orin_nano() -> None:
    found = facts("jetson-orin-nano")
    assert_facts(
        found,
        {
            "cpu": "Cortex-A78AE",
            "cores": 6,
            "l4t": "36.4.3",
            "jetpack": "6.2+b77",
            "tensorrt": "10.3.0.30",
            "sm": "8.7",
            "power_mode": "15W",
            "glibc": "2.35",
            "throttled": None,
            "runtimes": (
                FoundRuntime(
                    name="tensorrt",
                    version="10.3.0.30",
                    kind="program",
                    path="/usr/src/tensorrt/bin/trtexec",
                ),
            ),
        },
    )
    assert [name for name, _ in found.temperature_c] == ["cpu-thermal", "gpu-thermal", "tj-thermal"]
    assert found.notes == tuple(f"cpu{n} is capped at 1510400 of 1728000 kHz" for n in range(6))


def test_jetson_nano() -> None:
    assert_facts(
        facts("jetson-nano"),
        {
            "cpu": "Cortex-A57",
            "l4t": "32.7.1",
            "jetpack": "4.6.1-b110",
            "tensorrt": "8.2.1",
            "sm": "5.3",
            "power_mode": "MAXN",
            "glibc": "2.27",
            "glibcxx": "3.4.25",
            "os_id": "ubuntu bionic",
            "notes": (),
        },
    )


def test_emulated_board_is_known_by_its_device_tree() -> None:
    found = facts("qemu-cortex-a72")
    assert_facts(found, {"is_emulated": True, "cpu": "Cortex-A72", "cores": 2, "arch": "aarch64"})
    assert "aes" in found.features


def test_x86_host_is_no_emulated_board() -> None:
    found = facts("x86-host")
    assert_facts(found, {"is_emulated": False, "arch": "x86_64", "model": None, "compatible": ()})
    assert "avx2" in found.features
    assert facts("x86-host", vendor="QEMU", product="Standard PC").is_emulated
    assert facts("x86-host", vendor="LENOVO", product="20XY").model == "LENOVO 20XY"


def test_other_tensorrt_than_that_of_the_l4t_is_noted() -> None:
    packages = sections("jetson-orin-nano")["packages"].replace(
        "libnvinfer10 10.3.0.30-1", "libnvinfer10 10.7.0.23-1"
    )
    found = facts("jetson-orin-nano", packages=packages)
    assert found.tensorrt == "10.7.0.23"
    assert "TensorRT is 10.7.0.23, that of L4T 36.4.3 is 10.3" in found.notes


def test_jetpack_that_contradicts_l4t_is_noted() -> None:
    packages = sections("jetson-orin-nano")["packages"].replace("6.2+b77", "5.1.2-b104")
    assert (
        "the package nvidia-jetpack is 5.1.2-b104, L4T 36.4.3 is JetPack 6.1 or 6.2"
        in facts("jetson-orin-nano", packages=packages).notes
    )


def test_l4t_package_that_contradicts_the_release_file_is_noted() -> None:
    packages = sections("jetson-nano")["packages"].replace("32.7.1-2022", "32.7.4-2023")
    found = facts("jetson-nano", packages=packages)
    assert found.l4t == "32.7.1"
    assert found.notes == (
        "/etc/nv_tegra_release says L4T 32.7.1, the package nvidia-l4t-core 32.7.4",
    )


def test_without_the_release_file_l4t_is_that_of_the_package() -> None:
    assert facts("jetson-nano", nv_tegra_release="").l4t == "32.7.1"


def test_tensorrt_without_trtexec_is_a_runtime_with_a_problem() -> None:
    (found,) = facts("jetson-nano", trtexec="").runtimes
    assert found.problem == "there is no trtexec (package libnvinfer-bin)"


def test_kernel_of_64_bits_below_programs_of_32() -> None:
    found = facts("raspberry-pi-4", long_bit="32")
    assert found.arch == "armv7l"
    assert found.notes == ("the kernel is aarch64, the programs are of 32 bits (armv7l)",)


@pytest.mark.parametrize(
    ("name", "changed", "note"),
    [
        (
            "raspberry-pi-4",
            {"throttled": "Can't open device file: /dev/vcio"},
            "whether it is throttled is not known: vcgencmd says "
            '"Can\'t open device file: /dev/vcio"',
        ),
        (
            "jetson-nano",
            {"power_mode": "NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13"},
            "the power mode is not known: nvpmodel says "
            "'NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13'",
        ),
        (
            "raspberry-pi-4",
            {"disk": "df: /var/none: No such file or directory"},
            "free disk is not known: df says 'df: /var/none: No such file or directory'",
        ),
        (
            "x86-host",
            {"glibc": "getconf: GNU_LIBC_VERSION: unknown variable", "ldd": "musl libc (x86_64)\n"},
            "the C library is musl: no wheel for glibc loads here",
        ),
    ],
)
def test_what_cannot_be_read_is_noted(name: str, changed: dict[str, str], note: str) -> None:
    found = facts_from_sections(sections(name, **changed), Described(), at=AT)
    assert note in found.notes


def test_a_board_that_says_nothing_has_no_facts() -> None:
    empty = dict.fromkeys(sections("x86-host"), "")
    assert facts_from_sections(empty, Described(), at=AT) == BoardFacts(at=AT)


def test_python_says_the_glibc_where_nothing_else_does() -> None:
    found = facts("raspberry-pi-4", Described(glibc="2.36"), glibc="", ldd="")
    assert found.glibc == "2.36"
    assert facts("raspberry-pi-4", Described(glibc="2.99")).glibc == "2.36"


def test_what_python_found_is_taken_over() -> None:
    litert = FoundRuntime(name="litert", version="2.3.0", kind="python")
    described = Described(python="3.11.2", numpy="1.26.4", runtimes=(litert,), notes=("n",))
    found = facts("raspberry-pi-5", described)
    assert (found.python, found.numpy, found.runtimes) == ("3.11.2", "1.26.4", (litert,))
    assert found.notes == ("n",)
    assert BoardFacts.from_json(found.to_json()) == replace(found)
