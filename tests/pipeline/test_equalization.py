"""Which rewrites a model gets, with passes of the tests' own through the real exporter."""

# ruff: noqa: ANN401, ARG002 - nodes of torch.fx have no types; passes need not use all they get

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from edgeship.calibration.equalize import rewrite
from edgeship.calibration.equalize.program import FloatProgram
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite, Samples, Use
from edgeship.cli import main
from edgeship.vocabulary import RewriteName

INT8: Final = "build/raspberry-pi-4/onnx-int8/manifest.json"
aten: Final = torch.ops.aten


class Pass:
    """Scales what the first convolution gives by `factor`, and takes it back after the ReLU."""

    name = RewriteName.CROSS_LAYER
    gain = Gain.ACCURACY
    is_exact = True
    factor = 1.0

    def problems(self, use: Use) -> Iterable[str]:
        return ()

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        assert len(samples) == 24
        assert use.is_symmetric is False
        (relu, *_) = program.calls(aten.relu.default)
        scale = torch.full((1, 4, 1, 1), self.factor)
        scale[0, 0] = 1 / self.factor
        (norm,) = relu.all_input_nodes
        before = program.add_tensor("conv1.scale", scale, relu)
        scaled = program.insert(aten.mul.Tensor, (norm, before), before=relu, like=relu)
        relu.replace_input_with(norm, scaled)
        back = self.back(program, scale, relu.next)
        product = program.insert(aten.mul.Tensor, (relu, back), before=relu.next.next, like=relu)
        for user in [user for user in relu.users if user is not product]:
            user.replace_input_with(relu, product)
        return [f"4 channels by {self.factor:g}"]

    def back(self, program: FloatProgram, scale: torch.Tensor, before: Any) -> Any:
        return program.add_tensor("conv1.back", 1 / scale, before)


class Worse(Pass):
    """Per-tensor activations of unequal channels: what integers hold least."""

    factor = 64.0


class Wrong(Pass):
    """Does not take back what it did."""

    factor = 2.0

    def back(self, program: FloatProgram, scale: torch.Tensor, before: Any) -> Any:
        return program.add_tensor("conv1.back", scale, before)


class Inexact(Wrong):
    factor = 1.05
    is_exact = False


class Mild(Pass):
    factor = 2.0


class Nothing(Pass):
    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        message = "all channels are alike"
        raise NothingToRewrite(message)


class Useless(Pass):
    def problems(self, use: Use) -> Iterable[str]:
        yield f"of no use for {use.format}"


class Undo(Pass):
    """What is better than the program that `Worse` leaves: it takes the two products out."""

    name = RewriteName.SMOOTHQUANT

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        for node in program.calls(aten.mul.Tensor):
            node.replace_all_uses_with(node.all_input_nodes[0])
            program.graph.erase_node(node)
        return ["products taken out"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts passes of this file in the place of the real ones."""

    def put(*classes: type[Pass]) -> None:
        found = {item.name: item for item in classes}
        monkeypatch.setattr("edgeship.pipeline.equalization.REWRITES", found)
        monkeypatch.setattr("edgeship.pipeline.equalization.load_rewrite", lambda n: found[n]())

    return put


def build(project: Path, equalize: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    file = project / "edgeship.toml"
    text = file.read_text().partition("[targets.raspberry-pi-4.onnx]")[0]
    file.write_text(f"{text}[targets.raspberry-pi-4.onnx]\nequalize = {equalize}\n")
    code = main(["build", "--json", "-p", str(file)])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == 0, value
    return {**value, "manifest": json.loads((project / INT8).read_bytes())}


def equalize_notes(value: dict[str, Any]) -> list[str]:
    return [note for note in value["manifest"]["notes"] if note.startswith("equalize: ")]


@pytest.mark.slow
def test_a_pass_that_does_not_help_is_left_out_and_the_file_is_the_same(
    project: Path, passes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build(project, '"off"', capsys)["manifest"]
    passes(Worse)
    found = build(project, '"auto"', capsys)
    (note,) = equalize_notes(found)
    assert note.startswith("equalize: the model is left as it is: cross-layer left out (")
    assert "4 channels by 64" in note
    assert "on this host" in note
    manifest = found["manifest"]
    assert manifest["source"]["recipe"] == plain["source"]["recipe"]
    assert manifest["source"]["lowered_sha256"] == plain["source"]["lowered_sha256"]
    assert manifest["files"] == plain["files"]
    assert build(project, '"auto"', capsys)["stages_run"] == 0


@pytest.mark.slow
def test_a_pass_that_is_named_is_applied_and_proven(
    project: Path, passes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build(project, '"off"', capsys)["manifest"]
    passes(Mild)
    found = build(project, '["cross-layer"]', capsys)
    (note,) = equalize_notes(found)
    assert note.startswith("equalize: cross-layer applied: 4 channels by 2; float outputs moved")
    manifest = found["manifest"]
    (_, step) = manifest["source"]["recipe"]
    assert step["equalize"] == "cross-layer"
    assert step["float_difference"] < 1e-5
    assert manifest["source"]["lowered_sha256"] != plain["source"]["lowered_sha256"]
    assert manifest["artifact_id"] != plain["artifact_id"]
    fp32 = json.loads((project / INT8.replace("int8", "fp32")).read_bytes())
    assert not [note for note in fp32["notes"] if "equalize" in note]
    assert fp32["source"]["lowered_sha256"] == plain["source"]["lowered_sha256"]


@pytest.mark.slow
def test_passes_are_tried_upon_each_other(
    project: Path, passes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    passes(Worse, Undo)
    found = build(project, '["cross-layer", "smoothquant"]', capsys)
    assert [step["equalize"] for step in found["manifest"]["source"]["recipe"][1:]] == [
        "cross-layer",
        "smoothquant",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Wrong, "it moved a float output by"),
        (Nothing, "all channels are alike"),
        (Useless, "of no use for onnx"),
    ],
)
def test_a_pass_that_cannot_be_had_is_left_out_with_its_reason(
    project: Path, passes: Any, capsys: pytest.CaptureFixture[str], one: type[Pass], said: str
) -> None:
    passes(one)
    found = build(project, '["cross-layer"]', capsys)
    (note,) = equalize_notes(found)
    assert note.startswith("equalize: the model is left as it is: cross-layer left out: ")
    assert said in note


@pytest.mark.slow
def test_what_changes_the_function_is_asked_for_by_its_nature(
    project: Path, passes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    passes(Inexact)
    found = build(project, '["cross-layer"]', capsys)
    (_, step) = found["manifest"]["source"]["recipe"]
    assert step["float_difference"] > 1e-3


def test_unknown_names_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / "edgeship.toml"
    for value, said in (
        ('["cross-layr"]', "cross-layer"),
        ('"cross-layer"', 'equalize = ["cross-layer"]'),
    ):
        text = file.read_text().partition("[targets.raspberry-pi-4.onnx]")[0]
        file.write_text(f"{text}[targets.raspberry-pi-4.onnx]\nequalize = {value}\n")
        assert main(["build", "-p", str(file)]) == 2
        assert said in capsys.readouterr().err


def test_every_pass_of_the_registry_is_there_and_says_its_name() -> None:
    for name in rewrite.REWRITES:
        assert rewrite.load_rewrite(name).name == name
