from pathlib import Path

from edgeship.exporters.tensorrt.kit.power import (
    PowerMode,
    Tegrastats,
    ask_power_mode,
    power_mode_from_text,
    sample_from_line,
    summary_of,
)

GOLDEN = Path(__file__).parent / "data/golden"


def test_tegrastats_of_l4t_32_has_rails_without_a_unit() -> None:
    first, second = (
        sample_from_line(line)
        for line in (GOLDEN / "tegrastats_l4t32.txt").read_text().splitlines()
    )
    assert first is not None
    assert second is not None
    assert first.rails_mw == {"POM_5V_IN": 2532, "POM_5V_GPU": 120, "POM_5V_CPU": 450}
    assert (first.ram_mb, first.gpu_percent) == (2461, 76)
    assert first.temperature_c["CPU"] == 41.5
    summary = summary_of([first, second])
    assert summary is not None
    assert summary["rails_mean_mw"] == {"POM_5V_CPU": 460, "POM_5V_GPU": 140, "POM_5V_IN": 2582}
    assert summary["gpu_mean_percent"] == 78
    assert summary["ram_max_mb"] == 2463


def test_tegrastats_of_l4t_36_has_a_zone_that_is_off() -> None:
    sample = sample_from_line((GOLDEN / "tegrastats_l4t36.txt").read_text())
    assert sample is not None
    assert sample.rails_mw == {"VDD_IN": 4940, "VDD_CPU_GPU_CV": 480, "VDD_SOC": 1448}
    assert sample.gpu_percent == 99
    assert sample.temperature_c["gpu"] == 47.468
    assert "cv0" not in sample.temperature_c


def test_other_lines_and_no_samples_are_none() -> None:
    assert sample_from_line("tegrastats: cannot open /sys") is None
    assert summary_of([]) is None


def test_the_power_mode_has_a_name_and_a_number() -> None:
    found = power_mode_from_text((GOLDEN / "nvpmodel_l4t36.txt").read_text())
    assert found == PowerMode("15W", 0)
    found = power_mode_from_text((GOLDEN / "nvpmodel_l4t32.txt").read_text())
    assert found == PowerMode("MAXN", 0)
    assert power_mode_from_text((GOLDEN / "nvpmodel_broken.txt").read_text()) is None
    assert power_mode_from_text("NV Power Mode: 15W\n") == PowerMode("15W", None)


def test_programs_are_asked_where_they_are(tmp_path: Path) -> None:
    nvpmodel, tegrastats = tmp_path / "nvpmodel", tmp_path / "tegrastats"
    nvpmodel.write_text(f"#!/bin/sh\ncat {GOLDEN / 'nvpmodel_l4t36.txt'}\n")
    tegrastats.write_text(f"#!/bin/sh\ncat {GOLDEN / 'tegrastats_l4t32.txt'}\necho end\ncat\n")
    for program in (nvpmodel, tegrastats):
        program.chmod(0o755)
    assert ask_power_mode(str(nvpmodel)) == PowerMode("15W", 0)
    assert ask_power_mode(str(tmp_path / "nowhere")) is None
    with Tegrastats(str(tmp_path / "nowhere")) as absent:
        pass
    assert absent.samples == []


def test_tegrastats_is_heard_until_the_work_is_done(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = tmp_path / "tegrastats"
    program.write_text(
        f"#!/bin/sh\ncat {GOLDEN / 'tegrastats_l4t32.txt'}\nmkfifo {said}\nexec cat {said}\n"
    )
    program.chmod(0o755)
    with Tegrastats(str(program)) as found:
        while not said.exists():  # then its lines are in the pipe
            pass
    assert len(found.samples) == 2
