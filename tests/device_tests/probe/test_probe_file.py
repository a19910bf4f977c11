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
        json.dumps({**FACTS.to_json(), "schema": 2}),
        json.dumps({**FACTS.to_json(), "colour": "green"}),
        json.dumps({**FACTS.to_json(), "runtimes": [{"name": "litert"}]}),
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


def test_no_file_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no probe file"):
        read_probe_file(tmp_path / "none.json")
