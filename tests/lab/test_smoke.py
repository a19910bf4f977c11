"""What was built gives on emulated boards what it gave here, over SSH."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.artifact import read_artifact, write_manifest
from edgeship.device_tests.lab.board import lab_board
from edgeship.device_tests.lab.boot import RunningBoard, boot
from edgeship.device_tests.lab.image import LabImage
from edgeship.vocabulary import ChannelOrder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., tuple[int, Any]]

PI: Final = "raspberry-pi-4"
MEMORY: Final = 64_000_000


@pytest.fixture(scope="module")
def pi(lab: LabImage) -> Iterator[RunningBoard]:
    with boot(lab_board(PI), lab) as running:
        yield running


def evidence_of(project: Path, artifact: str, command: str) -> list[Any]:
    manifest = json.loads((project / f"build/{PI}/{artifact}/manifest.json").read_bytes())
    return [item for item in manifest["evidence"] if item["command"] == command]


def check_emulated(evidence: Mapping[str, Any]) -> None:
    """One that matched, on QEMU and said to be so, with its memory and without any latency."""
    assert evidence["rung"] == "matches", evidence
    assert evidence["place"] == "emulated"
    assert evidence["where"]["cpu"] == "Cortex-A72"
    assert "QEMU" in evidence["where"]["emulated"]
    memory = evidence["memory"]
    assert memory["imported_bytes"] < memory["peak_bytes"] < memory["imported_bytes"] + MEMORY
    assert "latency" not in evidence
    assert "failure" not in evidence


def check_passes(edgeship: Run, file: str) -> None:
    """`check` counts what the boards said, and finds nothing wrong."""
    code, value = edgeship("check", PI, "-p", file)
    assert code == 0, value
    judged = [item for row in value["artifacts"] for item in row["judgements"]]
    memory = [item for item in judged if item["quantity"] == "memory"]
    assert memory
    assert all(item["verdict"] == "pass" and "emulated" in item["detail"] for item in memory)


@pytest.mark.shared
@pytest.mark.usefixtures("lab")
def test_resnet20_matches_in_every_runtime_of_a_pi(resnet20: Path, edgeship: Run) -> None:
    file = str(resnet20 / "edgeship.toml")
    code, value = edgeship("test", PI, "-p", file)
    assert code == 0, value
    tried = [(trial["precision"], trial["runtime"]) for trial in value["trials"]]
    assert sorted(tried) == [
        ("int8", "litert"),
        ("int8", "onnxruntime"),
        ("int8", "tflite_runtime"),
    ]
    for trial in value["trials"]:
        assert trial["outcome"] == "ok", trial["sentence"]
        assert any(case["of"] == "preprocessing" for case in trial["cases"])
    for artifact, runtimes in (
        ("tflite-int8", ["ai-edge-litert", "tflite-runtime"]),
        ("onnx-int8", ["onnxruntime"]),
    ):
        found = evidence_of(resnet20, artifact, "edgeship test")
        assert sorted(item["where"]["runtime"] for item in found) == runtimes
        host = evidence_of(resnet20, artifact, "edgeship build")[0]
        for item in found:
            check_emulated(item)
            assert item["samples"] == 64
            low, high = item["ci95"]
            assert low < item["metrics"]["top1"] < high
            assert low < host["metrics"]["top1"] < high  # of all 2000
            assert item["metrics"]["agreement"] >= 0.95
    check_passes(edgeship, file)


@pytest.mark.shared
@pytest.mark.usefixtures("lab", "llama")
def test_tinylm_matches_in_llama_cpp_on_a_pi(tinylm: Path, edgeship: Run) -> None:
    file = str(tinylm / "edgeship.toml")
    code, value = edgeship("test", PI, "--samples", "2", "-p", file)
    assert code == 0, value
    (trial,) = value["trials"]
    assert trial["outcome"] == "ok", trial["sentence"]
    assert {"tokens", "kld"} <= {case["kind"] for case in trial["cases"]}
    (evidence,) = evidence_of(tinylm, "gguf-q4_0", "edgeship test")
    check_emulated(evidence)
    found, reference = (
        evidence["metrics"][name] for name in ("perplexity", "reference_perplexity")
    )
    assert abs(found / reference - 1) < 0.05
    check_passes(edgeship, file)


def test_a_small_net_matches_on_a_board_of_devices_toml(
    pi: RunningBoard, built: Path, edgeship: Run, write_devices: Callable[..., Path]
) -> None:
    with (built / "edgeship.toml").open("a") as text:
        text.write(f'[targets.{PI}.budget]\nmemory = "64 MB"\n')
    arguments = ("-p", str(built / "edgeship.toml"))
    devices = str(write_devices(pi.address()))
    # all 40: then the shares are those of this machine
    code, value = edgeship("test", PI, "--devices", devices, "--samples", "40", *arguments)
    assert code == 0, value
    (evidence,) = evidence_of(built, "onnx-int8", "edgeship test")
    (host,) = evidence_of(built, "onnx-int8", "edgeship build")
    check_emulated(evidence)
    assert evidence["where"]["device"] == "desk"
    assert evidence["samples"] == host["samples"] == 40
    for share in ("top1", "reference_top1", "agreement"):
        assert evidence["metrics"][share] == host["metrics"][share]
    check_passes(edgeship, arguments[1])


def test_wrong_preprocessing_is_named(
    pi: RunningBoard, built: Path, edgeship: Run, write_devices: Callable[..., Path]
) -> None:
    """The manifest tells the board another order of channels than the inputs were made with."""
    directory = built / f"build/{PI}/onnx-int8"
    manifest = read_artifact(directory).manifest
    (image,) = manifest.contract.inputs
    assert image.preprocess is not None
    turned = replace(image, preprocess=replace(image.preprocess, order=ChannelOrder.BGR))
    contract = replace(manifest.contract, inputs=(turned,))
    write_manifest(directory, replace(manifest, contract=contract))
    devices, file = str(write_devices(pi.address())), str(built / "edgeship.toml")
    arguments = ("--devices", devices, "--samples", "0", "-p", file)
    code, value = edgeship("test", PI, *arguments)
    assert code == 6
    (trial,) = value["trials"]
    assert trial["outcome"] == "mismatch"
    assert "the golden inputs were made with RGB channels" in trial["sentence"]
    assert "the manifest says BGR" in trial["sentence"]
    (evidence,) = evidence_of(built, "onnx-int8", "edgeship test")
    assert evidence["rung"] == "runs"
    assert evidence["failure"]["outcome"] == "mismatch"
    code, _ = edgeship("check", PI, "-p", file)
    assert code == 6
