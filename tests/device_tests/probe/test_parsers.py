from __future__ import annotations

import pytest

from edgeship.device_tests.probe.cpu import (
    cores_from_online,
    cpu_from_cpuinfo,
    frequency_from_text,
)
from edgeship.device_tests.probe.jetson import jetson_from_text, sm_from_compatible
from edgeship.device_tests.probe.raspberry import (
    temperature_from_text,
    throttled_from_text,
    throttling_now,
    throttling_since_boot,
)
from edgeship.device_tests.probe.system import (
    free_from_df,
    glibc_from_text,
    newest_glibcxx,
    os_from_release,
    page_size_from_text,
    zones_from_text,
)


def core(number: int, implementer: str, part: str, features: str) -> str:
    return (
        f"processor\t: {number}\nmodel name\t: ARMv8 Processor rev 0 (v8l)\n"
        f"Features\t: {features}\nCPU implementer\t: {implementer}\nCPU part\t: {part}\n\n"
    )


def test_cores_that_differ_are_named_and_share_their_features() -> None:
    text = core(0, "0x41", "0xd05", "fp asimd") + core(1, "0x41", "0xd0b", "fp asimd asimddp")
    found = cpu_from_cpuinfo(text)
    assert (found.name, found.cores) == ("Cortex-A55 + Cortex-A76", 2)
    assert found.features == ("fp", "asimd")


def test_core_without_a_known_name_is_told_by_its_numbers() -> None:
    assert cpu_from_cpuinfo(core(0, "0x61", "0x022", "fp")).name == "implementer 0x61, part 0x22"


def test_cpuinfo_of_32_bits_ends_with_lines_of_the_board() -> None:
    text = (
        core(0, "0x41", "0xc07", "half thumb neon vfpv4") + "Hardware\t: BCM2835\nModel\t: Pi 2\n"
    )
    found = cpu_from_cpuinfo(text)
    assert (found.name, found.cores) == ("Cortex-A7", 1)
    assert "neon" in found.features


def test_empty_cpuinfo() -> None:
    found = cpu_from_cpuinfo("")
    assert (found.name, found.features, found.cores) == (None, (), None)


@pytest.mark.parametrize(
    ("text", "count"), [("0-3", 4), ("0", 1), ("0-1,4-5,7\n", 5), ("", None), ("x", None)]
)
def test_cores_online(text: str, count: int | None) -> None:
    assert cores_from_online(text) == count


def test_first_cpu_that_says_all_frequencies_counts() -> None:
    found = frequency_from_text(
        "cpu0 schedutil - 600000 1800000 1800000\ncpu4 performance 2400000 408000 2400000 2000000\n"
    )
    assert found.khz == (2400000, 408000, 2400000)
    assert found.governors == ("performance", "schedutil")
    assert found.notes == ("cpu4 is capped at 2000000 of 2400000 kHz",)


@pytest.mark.parametrize(
    ("getconf", "smaps", "size"),
    [
        ("65536\n", "", 65536),
        ("", "KernelPageSize:       16 kB\n", 16384),
        ("sh: getconf: not found", "KernelPageSize:        4 kB", 4096),
        ("", "", None),
    ],
)
def test_page_size(getconf: str, smaps: str, size: int | None) -> None:
    assert page_size_from_text(getconf, smaps) == size


def test_free_disk_of_a_device_with_spaces_and_a_root_that_is_none() -> None:
    header = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    assert free_from_df(f"{header}//nas/my share 1000 400 600 40% /mnt") == 600 * 1024
    assert free_from_df(f"{header}overlay 1000 1000 0 100% /") == 0
    assert free_from_df("df: no") is None


def test_os_release_of_a_release_without_a_code_name() -> None:
    text = "NAME='Fedora Linux'\nID=fedora\nVERSION_ID=41\nPRETTY_NAME=\"Fedora Linux 41\"\n# c\n"
    assert os_from_release(text) == ("Fedora Linux 41", "fedora 41")
    assert os_from_release("ID=debian\n") == (None, "debian")
    assert os_from_release('PRETTY_NAME="odd\n') == ('"odd', None)


@pytest.mark.parametrize(
    ("getconf", "ldd", "version"),
    [
        ("glibc 2.31\n", "ldd (Debian GLIBC 2.36) 2.36", "2.31"),
        ("", "ldd (GNU libc) 2.28\nCopyright", "2.28"),
        ("", "ldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35\n", "2.35"),
        ("", "musl libc (aarch64)\nVersion 1.2.3\n", None),
        ("", "", None),
    ],
)
def test_glibc(getconf: str, ldd: str, version: str | None) -> None:
    assert glibc_from_text(getconf, ldd) == version


def test_newest_glibcxx_is_no_alphabetical_last() -> None:
    text = "GLIBCXX_3.4\nGLIBCXX_3.4.9\nGLIBCXX_3.4.30\nGLIBCXX_3.4.4\nGLIBCXX_DEBUG_MESSAGE\n"
    assert newest_glibcxx(text) == "3.4.30"
    assert newest_glibcxx("") is None


def test_zones_without_a_sensor_are_left_out() -> None:
    text = "48000 cpu thermal\n-256000 cv0\n- cv1\n-5500 outside\n39000 -\n"
    assert zones_from_text(text) == (("cpu thermal", 48.0), ("outside", -5.5), ("-", 39.0))


def test_throttling_bits() -> None:
    assert throttled_from_text("throttled=0x50005\n") == 0x50005
    assert throttled_from_text("warning\nthrottled=0xe0008") == 0xE0008
    assert throttled_from_text("error=1 error_msg=...") is None
    assert throttling_now(0x50005) == ("under-voltage", "throttled")
    assert throttling_since_boot(0x50005) == ("under-voltage", "throttled")
    assert throttling_now(0xE0000) == ()
    assert throttling_since_boot(0xE0000) == (
        "frequency capped",
        "throttled",
        "soft temperature limit",
    )


def test_temperature_of_vcgencmd() -> None:
    assert temperature_from_text("temp=48.3'C\n") == 48.3
    assert temperature_from_text("") is None


def test_packages_that_were_removed_do_not_count() -> None:
    found = jetson_from_text("", "libnvinfer8 8.5.2-1+cuda11.4 config-files\n")
    assert (found.tensorrt, found.l4t, found.notes) == (None, None, ())


def test_of_two_tensorrt_the_newer_library_counts() -> None:
    packages = "libnvinfer10 10.3.0.30-1 installed\nlibnvinfer8 8.6.2.3-1 installed\n"
    assert jetson_from_text("", packages).tensorrt == "10.3.0.30"


def test_an_l4t_that_is_not_in_the_table_contradicts_nothing() -> None:
    text = "# R40 (release), REVISION: 1.0, GCID: 1, BOARD: x"
    assert jetson_from_text(text, "nvidia-jetpack 8.0 installed").notes == ()


@pytest.mark.parametrize(
    ("compatible", "sm"),
    [
        (("nvidia,p3450-0000", "nvidia,jetson-nano", "nvidia,tegra210"), "5.3"),
        (("nvidia,jetson-xavier", "nvidia,tegra194"), "7.2"),
        (("raspberrypi,4-model-b", "brcm,bcm2711"), None),
        ((), None),
    ],
)
def test_compute_capability(compatible: tuple[str, ...], sm: str | None) -> None:
    assert sm_from_compatible(compatible) == sm
