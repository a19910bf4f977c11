"""Instructions of an inference, counted on emulated boards: work, never a latency."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.artifact import read_artifact, write_manifest
from edgeship.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("lab")]

Run = Callable[..., tuple[int, Any]]

PI_4: Final = "raspberry-pi-4"
PI_5: Final = "raspberry-pi-5"


def instructions(value: Mapping[str, Any]) -> dict[tuple[str, str, str], int]:
    """By target, precision and runtime, of what `bench` said; there is no latency in it."""
    found = {}
    for timing in value["timings"]:
        evidence = timing["evidence"]
        assert evidence["place"] == "emulated", timing
        assert evidence["rung"] == "timed"
        assert "latency" not in evidence
        work = evidence["work"]
        assert work["spread"][0] <= work["instructions"] <= work["spread"][1]
        key = (timing["target"], timing["precision"], timing["runtime"])
        found[key] = work["instructions"]
    return found


def test_instructions_repeat_over_two_boots(project: Path, edgeship: Run) -> None:
    # of larger images: Python's own instructions, 2000 more or less by boot (measured), are more
    # than 1 % of what the net takes otherwise
    text = (project / "edgeship.toml").read_text()
    assert text.count("8, 8]") == 2
    budget = f'[targets.{PI_4}.budget]\nlatency_p95 = "1 s"\n'
    (project / "edgeship.toml").write_text(text.replace("8, 8]", "64, 64]") + budget)
    file = str(project / "edgeship.toml")
    assert main(["build", "-q", "-p", file]) == 0
    counts = []
    for _ in range(2):
        code, value = edgeship("bench", PI_4, "--only", "onnx-int8", "-p", file)
        assert code == 0, value
        (count,) = instructions(value).values()
        counts.append(count)
    assert abs(counts[0] - counts[1]) < 0.01 * counts[0], counts
    manifest = json.loads((project / f"build/{PI_4}/onnx-int8/manifest.json").read_bytes())
    (evidence,) = (item for item in manifest["evidence"] if item["command"] == "edgeship bench")
    assert evidence["work"]["instructions"] == counts[1]
    assert not any("latency" in item for item in manifest["evidence"])
    _, checked = edgeship("check", PI_4, "-p", file)
    verdicts = {
        item["quantity"]: item["verdict"]
        for row in checked["artifacts"]
        if row["precision"] == "int8"
        for item in row["judgements"]
    }
    assert verdicts["latency_p95"] == "unmeasured"


@pytest.mark.shared
def test_int8_takes_fewer_instructions_than_float_in_litert(
    resnet20: Path, edgeship: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory in resnet20.glob("build/*/tflite-*"):
        manifest = read_artifact(directory).manifest
        litert = tuple(need for need in manifest.requires.any_of if need.runtime == "litert")
        requires = replace(manifest.requires, any_of=litert)
        write_manifest(directory, replace(manifest, requires=requires))
    only = ("--only", "tflite-int8", "--only", "tflite-fp32")
    code, value = edgeship("bench", PI_4, PI_5, *only, "-p", str(resnet20 / "edgeship.toml"))
    assert code == 0, value
    found = instructions(value)
    ratios = {
        target: found[target, "int8", "litert"] / found[target, "fp32", "litert"]
        for target in (PI_4, PI_5)
    }
    with capsys.disabled():
        for target, ratio in ratios.items():
            print(f"\nResNet-20 on {target} in LiteRT: int8 takes {ratio:.2f} of float", end="")
    # 0.84 and 0.35 (measured): only the A76 has dotprod
    assert ratios[PI_5] < 0.5 < ratios[PI_4] < 1
