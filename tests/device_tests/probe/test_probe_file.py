from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeship.device_tests.probe.probe_file import read_probe_file, write_probe_file
from edgeship.errors import ConfigurationError
from edgeship.targets.board_facts import BoardFacts, FoundRuntime

FACTS = BoardFacts(
    at="2026-11-22T10:00:00Z",
    model="Raspberry Pi 4 Model B Rev 1.4",
    features=("fp", "asimd"),
    frequency_khz=(600000, 600000, 1500000),
    temperature_c=(("cpu-thermal", 48.3),),
    runtimes=(FoundRuntime(name="litert", version="2.3.0", kind="python"),),
    notes=("it is 48 °C",),
)


def changed(**values: object) -> str:
    return json.dumps({**FACTS.to_json(), **values})


def test_facts_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "probes" / "pi4.json"
    write_probe_file(file, FACTS)
    assert read_probe_file(file) == FACTS
    assert [path.name for path in file.parent.iterdir()] == ["pi4.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"schema": 1}',
        changed(schema=2),
        changed(colour="green"),
        changed(runtimes=[{"name": "litert"}]),
        changed(cores="4"),
        changed(cores=True),
        changed(cores=4.5),
        changed(arch=["aarch64"]),
        changed(features="fp asimd"),
        changed(features=["fp", 3]),
        changed(frequency_khz=[600000, 1500000]),
        changed(temperature_c=[["cpu-thermal", "48"]]),
        changed(is_emulated="no"),
        changed(at=None),
        changed(runtimes=None),
        changed(runtimes=[{"name": "litert", "version": 2, "kind": "python"}]),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pi4.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        read_probe_file(file)
    (problem,) = caught.value.problems
    assert problem.where == str(file)
    assert "edgeship doctor --device" in problem.remedy


def test_a_value_of_another_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pi4.json"
    file.write_text(changed(memory_bytes="4 GB"))
    with pytest.raises(ConfigurationError, match="memory_bytes is '4 GB'"):
        read_probe_file(file)


def test_a_whole_number_of_degrees_is_a_temperature(tmp_path: Path) -> None:
    file = tmp_path / "pi4.json"
    file.write_text(changed(temperature_c=[["cpu-thermal", 48]]))
    assert read_probe_file(file).temperature_c == (("cpu-thermal", 48),)


def test_no_file_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no probe file"):
        read_probe_file(tmp_path / "none.json")
