"""A project goes the whole way to TFLite, and what may stop it on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgeship.artifact import read_artifact
from edgeship.cli import main
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE

pytestmark = pytest.mark.slow

BOARD: Final = "build/raspberry-pi-4"
OLD_RUNTIME: Final = Path(
    os.environ.get(TFLITE_RUNTIME_VARIABLE, Path(__file__).parents[2] / ".cache/tflite/bin/python")
)


def build(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["build", "-q", "--json", "-p", str(directory / "edgeship.toml")])
    return code, json.loads(capsys.readouterr().out)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project built as TFLite, measured in LiteRT alone."""
    directory = tmp_path_factory.mktemp("tflite") / "project"
    shutil.copytree(project_template, directory)
    edit(directory / "edgeship.toml", 'formats = ["onnx"]', 'formats = ["tflite"]')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TFLITE_RUNTIME_VARIABLE, str(directory / "no-python"))
        assert main(["build", "-q", "-p", str(directory / "edgeship.toml")]) == 0
    return directory


@pytest.fixture
def project_of_tflite(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where TFLite Runtime is not to be had."""
    monkeypatch.setenv(TFLITE_RUNTIME_VARIABLE, str(tmp_path / "no-python"))
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


def interpreter(file: Path) -> Any:  # noqa: ANN401 - the vendor has no types
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(
        model_path=str(file),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    return made


def test_int8_is_integer_throughout_and_says_what_it_takes(template: Path) -> None:
    directory = template / BOARD / "tflite-int8"
    manifest = read_artifact(directory).manifest
    details = interpreter(directory / "model.tflite").get_tensor_details()
    assert {np.dtype(item["dtype"]).name for item in details} == {"int8", "int32"}
    (taken,), (given,) = manifest.contract.inputs, manifest.contract.outputs
    assert (taken.name, taken.dtype, taken.shape) == ("image", "int8", (1, 8, 8, 3))
    assert (given.name, given.dtype, given.labels) == ("logits", "int8", "labels.txt")
    assert str(taken.layout) == "NHWC"
    assert [need.runtime for need in manifest.requires.any_of] == ["litert", "tflite_runtime"]
    assert not [n for n in manifest.notes if "TRANSPOSE" in n or "in float" in n]


def test_a_board_can_make_the_golden_inputs_and_gets_the_golden_outputs(template: Path) -> None:
    directory = template / BOARD / "tflite-int8"
    manifest = json.loads((directory / "manifest.json").read_bytes())
    (taken,), (given,) = manifest["contract"]["inputs"], manifest["contract"]["outputs"]
    pack = json.loads((directory / "golden/golden.json").read_bytes())
    runs = interpreter(directory / "model.tflite")
    for case in pack["cases"]:

        def read(entry: dict[str, Any]) -> np.ndarray:
            content = (directory / "golden" / entry["file"]).read_bytes()
            return np.frombuffer(content, entry["dtype"]).reshape(entry["shape"])

        raw = np.frombuffer((directory / "golden" / case["raw"]["file"]).read_bytes(), np.uint8)
        pixels = raw.reshape(1, 8, 8, 3).astype(np.float32) / 255
        wanted = taken["preprocess"]
        real = (pixels - np.float32(wanted["mean"])) / np.float32(wanted["std"])
        stored = np.rint(real / np.float32(taken["scale"])) + taken["zero_point"]
        inputs = np.clip(stored, -128, 127).astype(np.int8)
        assert np.abs(inputs.astype(int) - read(case["inputs"][0])).max() <= 1

        runs.set_tensor(runs.get_input_details()[0]["index"], read(case["inputs"][0]))
        runs.invoke()
        found = runs.get_tensor(runs.get_output_details()[0]["index"])
        own, model = case["expect"]
        assert own["compare"]["kind"] == "lsb"
        apart = np.abs(found.astype(int) - read(own)).max()
        assert apart <= own["compare"]["limit"]
        values = (found.astype(np.float32) - given["zero_point"]) * given["scale"]
        assert np.abs(values - read(model)).max() <= model["compare"]["limit"]


def test_labels_and_normalisation_are_inside_of_the_file(template: Path) -> None:
    file = template / BOARD / "tflite-int8/model.tflite"
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt") == b"bright\ndark\n"
    content = file.read_bytes()
    assert b"TFLITE_METADATA" in content
    assert read_artifact(file.parent).manifest.source["lowered_sha256"].encode() in content  # type: ignore[attr-defined]


def test_a_second_build_does_no_work_and_imports_no_vendor_package(
    project_of_tflite: Path,
) -> None:
    script = (
        "import sys; from edgeship.cli import main\n"
        "assert main(['build', '-q', '-p', sys.argv[1]]) == 0\n"
        "print('modules:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(project_of_tflite / "edgeship.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "everything was up to date" in done.stdout
    loaded = set(done.stdout.split("modules:")[-1].split())
    assert not {"torch", "litert_torch", "ai_edge_litert", "ai_edge_quantizer", "jax"} & loaded


def test_what_was_not_measured_in_a_listed_runtime_is_said(
    project_of_tflite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, value = build(project_of_tflite, capsys)
    assert code == 0
    for item in value["artifacts"]:
        assert item["verdict"] == "unmeasured"
        (missing,) = [one for one in item["judgements"] if one["verdict"] == "unmeasured"]
        assert "tflite_runtime was not measured" in missing["detail"]
        assert [one["where"]["runtime"] for one in item["evidence"]] == ["ai-edge-litert"]


def test_values_are_compared_in_every_runtime_of_the_target(
    project_of_tflite: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not OLD_RUNTIME.exists():
        pytest.skip("make fixtures")
    monkeypatch.setenv(TFLITE_RUNTIME_VARIABLE, str(OLD_RUNTIME))
    code, value = build(project_of_tflite, capsys)
    assert code == 0
    for item in value["artifacts"]:
        assert item["verdict"] == "pass"
        runtimes = {one["where"]["runtime"]: one for one in item["evidence"]}
        assert runtimes.keys() == {"ai-edge-litert", "tflite-runtime"}
        assert runtimes["tflite-runtime"]["where"]["version"] == "2.14.0"
        assert {one["rung"] for one in runtimes.values()} == {"matches"}


def test_what_a_rule_keeps_in_float_is_labelled(
    project_of_tflite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = '[[targets.raspberry-pi-4.tflite.rules]]\nmatch = "conv2"\nprecision = "fp32"\n'
    file = project_of_tflite / "edgeship.toml"
    file.write_text(file.read_text() + rule)
    code, value = build(project_of_tflite, capsys)
    assert code == 0
    int8 = next(item for item in value["artifacts"] if item["precision"] == "int8")
    (note,) = [note for note in int8["notes"] if "not fully integer" in note]
    assert "1 operator in float by your rules: 1 CONV_2D; in conv2" in note


def test_an_operator_without_integers_is_named_with_its_module_and_nothing_is_left(
    project_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(shutil.copytree(project_template, tmp_path / "project"))
    edit(directory / "edgeship.toml", 'formats = ["onnx"]', 'formats = ["tflite"]')
    edit(
        directory / "model.py",
        "class Net(nn.Module):",
        "class Bend(nn.Module):\n    def forward(self, x):\n        return (-x.abs()).exp()\n\n\n"
        "class Net(nn.Module):",
    )
    edit(
        directory / "model.py",
        "        self.conv2",
        "        self.bend = Bend()\n        self.conv2",
    )
    edit(directory / "model.py", "x = x + self.conv2(x).relu()", "x = x + self.bend(self.conv2(x))")
    code, value = build(directory, capsys)
    assert code == 3
    problems = [problem for problem in value["problems"] if "int8" in problem["where"]]
    assert {problem["what"].split()[0] for problem in problems} >= {"EXP"}
    assert all("module bend" in problem["where"] for problem in problems)
    assert not (directory / BOARD / "tflite-int8").exists()
    assert not [*directory.rglob(".new-*")]
