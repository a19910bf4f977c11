from __future__ import annotations

from pathlib import Path

from edgeship.device_tests.probe.assembly import facts_from_sections
from edgeship.device_tests.probe.described import Described
from edgeship.device_tests.probe.lines import facts_lines, runtime_rows, warning_lines
from edgeship.device_tests.probe.script import sections_from_text
from edgeship.targets.board_facts import BoardFacts, FoundRuntime

LITERT = FoundRuntime(name="litert", version="2.3.0", kind="python")
OLD = FoundRuntime(
    name="tflite_runtime", version="2.14.0", kind="python", problem="it needs numpy below 2"
)
SERVER = FoundRuntime(name="llama.cpp", version=None, kind="program", path="/usr/bin/llama-server")


def record(name: str, described: Described | None = None) -> BoardFacts:
    text = Path(__file__).with_name("records").joinpath(f"{name}.txt").read_text()
    return facts_from_sections(sections_from_text(text), described or Described(), at="")


def test_a_board_in_lines() -> None:
    described = Described(python="3.10.12", numpy="1.26.4", runtimes=(LITERT,))
    assert facts_lines(record("jetson-orin-nano", described)) == [
        "NVIDIA Jetson Orin Nano Developer Kit",
        "6 x Cortex-A78AE, aarch64, with aes atomics fphp asimdhp asimddp",
        "6.0 GB available of 8.0 GB memory, 197.1 GB free disk, pages of 4096 bytes",
        "Ubuntu 22.04.5 LTS, kernel 5.15.148-tegra",
        "glibc 2.35, GLIBCXX 3.4.30",
        "Python 3.10.12, numpy 1.26.4",
        "L4T 36.4.3, JetPack 6.2+b77, TensorRT 10.3.0.30, compute capability 8.7, power mode 15W",
        "governor schedutil, 729 MHz of 115 to 1728",
        "temperature cpu-thermal 49.5 °C, gpu-thermal 48.2 °C, tj-thermal 50.1 °C",
    ]


def test_what_is_not_known_has_no_line() -> None:
    assert facts_lines(BoardFacts(at="")) == [
        "a board that does not say its model",
        "a CPU without a name",
    ]


def test_an_emulated_board_says_so_first() -> None:
    assert "emulated: its times are none of a device" in facts_lines(record("qemu-cortex-a72"))[0]


def test_runtimes_that_can_be_used_come_first() -> None:
    facts = BoardFacts(at="", runtimes=(OLD, LITERT, SERVER))
    assert runtime_rows(facts) == [
        ("litert", "2.3.0", "ready"),
        ("llama.cpp", "?", "ready (/usr/bin/llama-server)"),
        ("tflite_runtime", "2.14.0", "it needs numpy below 2"),
    ]


def test_throttling_now_and_since_boot() -> None:
    assert warning_lines(BoardFacts(at="", throttled=0xD0005)) == [
        "now: under-voltage, throttled: what is measured now is not the board's own speed",
        "since it booted: soft temperature limit: it was too hot",
    ]
    assert warning_lines(BoardFacts(at="", throttled=0x50000)) == [
        "since it booted: under-voltage, throttled: its power supply is too weak"
    ]
    assert warning_lines(BoardFacts(at="", throttled=0)) == []


def test_heat_counts_but_not_of_a_zone_that_measures_nothing() -> None:
    hot = BoardFacts(at="", temperature_c=(("cpu-thermal", 81.4), ("PMIC-Die", 100.0)))
    assert warning_lines(hot) == ["cpu-thermal is at 81 °C: let it cool down"]
    assert not any("PMIC" in line for line in warning_lines(record("jetson-nano")))


def test_governor_numpy_and_runtimes_are_told() -> None:
    facts = BoardFacts(at="", governor=("ondemand",), python="3.9.2", runtimes=(OLD,), notes=("n",))
    assert warning_lines(facts) == [
        "the governor is ondemand: latencies ask for performance",
        "its Python has no numpy: no artifact can be tested there",
        "no runtime can be used there",
        "n",
    ]
