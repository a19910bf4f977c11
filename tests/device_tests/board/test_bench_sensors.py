from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeship.device_tests.board.bench_sampler import Sampler
from edgeship.device_tests.board.sensors import Sensors

CPUS = "sys/devices/system/cpu"
FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"
TICKS = os.sysconf("SC_CLK_TCK")
PI = {
    **{
        f"{CPUS}/cpu{number}/cpufreq/{name}": value
        for number in range(2)
        for name, value in (
            ("scaling_governor", "ondemand"),
            ("scaling_cur_freq", str(1500000 - 100000 * number)),
            ("scaling_min_freq", "600000"),
            ("scaling_max_freq", "1500000"),
            ("cpuinfo_min_freq", "600000"),
            ("cpuinfo_max_freq", "1800000"),
        )
    },
    f"{CPUS}/cpufreq/policy0/scaling_governor": "not looked at twice",
    f"{ZONE}/type": "cpu-thermal",
    f"{ZONE}/temp": "61837",
    f"{ZONE}/trip_point_0_type": "critical",
    f"{ZONE}/trip_point_0_temp": "110000",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "3",
    FLAGS: "50000",
    "proc/loadavg": "0.42 0.30 0.20 1/123 4567",
    "proc/stat": "cpu  1000 20 300 5000 60 7 8 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
}


def tree(root: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return str(root)


def sensors(root: str, **options: object) -> Sensors:
    return Sensors(root, vcgencmd=("no-such-program-here",), **options)  # type: ignore[arg-type]


def test_a_raspberry_pi_is_read(tmp_path: Path) -> None:
    found = sensors(tree(tmp_path, PI)).sample()
    assert found["governor"] == {"cpu0": "ondemand", "cpu1": "ondemand"}
    assert found["khz"] == {"cpu0": 1500000, "cpu1": 1400000}
    assert found["milli_c"] == {"thermal_zone0 cpu-thermal": 61837}
    assert found["throttled"] == 0x50000
    assert found["load"] == 0.42
    assert found["busy_s"] == (1000 + 20 + 300 + 7 + 8) / TICKS  # not idle, not waiting for disks
    assert found["steal_s"] == 9 / TICKS
    assert found["cooling"] == 0  # a fan


def test_what_does_not_change_is_read_once(tmp_path: Path) -> None:
    found = sensors(tree(tmp_path, PI)).board()
    assert found["is_pinned"] is False
    assert found["khz_range"] == [600000, 1800000]
    assert found["limit_milli_c"] == {"thermal_zone0 cpu-thermal": 80000}
    assert found["machine"] == "raspberrypi,4-model-b brcm,bcm2711"


def test_a_board_that_is_no_pi_has_the_limits_of_its_kernel(tmp_path: Path) -> None:
    files = {name: text for name, text in PI.items() if name != FLAGS}
    files |= {f"{ZONE}/trip_point_1_type": "passive", f"{ZONE}/trip_point_1_temp": "99000"}
    files |= {f"{ZONE}/trip_point_2_type": "active", f"{ZONE}/trip_point_2_temp": "50000"}
    board = sensors(tree(tmp_path, files))
    assert board.sample()["throttled"] is None
    assert board.board()["limit_milli_c"] == {"thermal_zone0 cpu-thermal": 99000}


def test_equal_ends_of_the_allowed_frequencies_pin_the_clock(tmp_path: Path) -> None:
    files = PI | {f"{CPUS}/cpu{n}/cpufreq/scaling_min_freq": "1500000" for n in range(2)}
    assert sensors(tree(tmp_path, files)).board()["is_pinned"] is True


@pytest.mark.parametrize("kind", ["Processor", "cpufreq-cpu0", "thermal-cpufreq-0"])
def test_cpus_that_are_slowed_down_for_heat_count(tmp_path: Path, kind: str) -> None:
    device = "sys/class/thermal/cooling_device1"
    files = PI | {f"{device}/type": kind, f"{device}/cur_state": "2"}
    assert sensors(tree(tmp_path, files)).sample()["cooling"] == 2


def test_counts_of_x86_throttling_are_added_up(tmp_path: Path) -> None:
    files = {
        f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": "3",
        f"{CPUS}/cpu1/thermal_throttle/package_throttle_count": "4",
    }
    assert sensors(tree(tmp_path, files)).sample()["throttle_count"] == 7


def test_the_firmware_is_asked_where_there_is_no_file(tmp_path: Path) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\necho "throttled=0x50005 $1"\n')
    program.chmod(0o755)
    board = Sensors(str(tmp_path / "none"), vcgencmd=(str(program), ""))
    assert board.sample()["throttled"] == 0x50005
    program.write_text("#!/bin/sh\necho 'VCHI initialization failed'\nexit 1\n")
    assert board.sample()["throttled"] is None


def test_a_board_that_says_nothing_gives_nothing(tmp_path: Path) -> None:
    board = sensors(str(tmp_path / "none"))
    found = board.sample()
    assert {key for key, value in found.items() if value} == {"at_ns", "wall_s"}
    assert "busy_s" not in found
    assert board.board()["is_pinned"] is False


def test_files_that_cannot_be_read_now_are_left_out(tmp_path: Path) -> None:
    root = Path(tree(tmp_path, PI))
    (root / ZONE / "temp").unlink()
    (root / ZONE / "temp").mkdir()  # open() fails, as on a zone that is off
    (root / f"{CPUS}/cpu0/cpufreq/scaling_cur_freq").write_text("<unknown>\n")
    found = sensors(str(root)).sample()
    assert found["milli_c"] == {}
    assert found["khz"] == {"cpu1": 1400000}


def test_both_clocks_are_read_at_one_moment(tmp_path: Path) -> None:
    delays = iter([0, 900, 0, 5, 0, 400])  # ns that pass before and after each look at the day
    now = [0]

    def clock_ns() -> int:
        now[0] += next(delays)
        return now[0]

    board = sensors(str(tmp_path), clock_ns=clock_ns, wall_s=lambda: 1e9 + now[0] * 1e-9)
    found = board.sample()
    assert found["at_ns"] == 902  # the middle of the second try, which took 5 ns
    assert found["wall_s"] == pytest.approx(1e9 + 900e-9, abs=1e-6)


def test_our_own_time_is_told_apart(tmp_path: Path) -> None:
    fields = "S 1 1 1 0 -1 4194560 1 2 3 4 500 60 7 8 20 0"
    root = tree(tmp_path, PI | {f"proc/{os.getpid()}/stat": f"{os.getpid()} (a ) b) {fields}"})
    child = fields.replace("S 1 ", f"S {os.getpid()} ").replace(" 500 60 7 8", " 1000 0 0 0")
    tree(tmp_path, {"proc/77/stat": f"77 (llama-server) {child}"})
    board = sensors(root)
    assert board.sample()["own_s"] == (500 + 60 + 7 + 8) / TICKS
    board.board()  # finds the program that a runtime is
    assert board.sample()["own_s"] == (1575) / TICKS


def test_time_on_this_machine_is_ours_while_we_are_busy() -> None:
    board = Sensors()
    before = board.sample()
    start = time.process_time()
    while time.process_time() - start < 0.3:
        pass
    after = board.sample()
    assert 0.25 < after["own_s"] - before["own_s"] < 1.0
    assert after["busy_s"] - before["busy_s"] >= 0.2  # of all CPUs


def test_the_sampler_looks_at_the_begin_and_the_end(tmp_path: Path) -> None:
    with Sampler(sensors(tree(tmp_path, PI)), 0.0) as sampler:
        assert len(sampler.samples) == 1
        sampler.look()
    assert len(sampler.samples) == 3


def test_the_sampler_looks_by_itself(tmp_path: Path) -> None:
    root = tree(tmp_path, PI)
    with Sampler(sensors(root), 0.01) as sampler:
        wait_until(lambda: len(sampler.samples) > 3)
        shutil.rmtree(tmp_path / "sys")
        count = len(sampler.samples)
        wait_until(lambda: len(sampler.samples) > count + 1)
    assert sampler.samples[-1]["governor"] == {}
    times = [sample["at_ns"] for sample in sampler.samples]
    assert times == sorted(times)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not is_so():
        assert time.monotonic() < deadline
        os.sched_yield()
