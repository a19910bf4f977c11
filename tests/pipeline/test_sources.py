"""Every kind of source goes the whole way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from edgeship.artifact import read_artifact
from edgeship.cli import main
from edgeship.source.imports import project_imports
from edgeship.vocabulary import Metric

pytestmark = pytest.mark.slow

WEIGHTS = 'factory = "model.py:build"\nweights = "bright.safetensors"'


def make_module(directory: Path) -> torch.nn.Module:
    from edgeship.project import Factory, FactorySource
    from edgeship.source.factory_module import load_factory_module

    factory = Factory(file=directory / "model.py", attribute="build")
    source = FactorySource(factory=factory, weights=directory / "bright.safetensors")
    with project_imports(directory):
        return load_factory_module(source)[0].eval()


def write_source(directory: Path, kind: str) -> str:
    """Turn the project's checkpoint into another kind; its lines in the project file."""
    example = (torch.zeros(1, 3, 8, 8),)
    if kind == "hf":
        (directory / "checkpoint").mkdir()
        shutil.move(directory / "bright.safetensors", directory / "checkpoint/model.safetensors")
        return 'factory = "model.py:build"\nweights = "checkpoint"'
    module = make_module(directory)
    if kind == "program":
        torch.export.save(torch.export.export(module, example), directory / "m.pt2")
        return 'program = "m.pt2"'
    file = directory / "m.onnx"
    torch.onnx.export(
        module,
        example,
        file,
        dynamo=True,
        external_data=True,
        opset_version=18,
        input_names=["image"],
        output_names=["scores"],
        verbose=False,
    )
    assert file.with_suffix(".onnx.data").is_file()
    return 'onnx = "m.onnx"'


@pytest.mark.parametrize("kind", ["hf", "program", "onnx"])
def test_every_source_becomes_an_int8_artifact_that_matches_it(project: Path, kind: str) -> None:
    toml = project / "edgeship.toml"
    toml.write_text(toml.read_text().replace(WEIGHTS, write_source(project, kind)))
    assert main(["build", "--quiet", "--project", str(toml)]) == 0
    artifact = read_artifact(project / "build/raspberry-pi-4/onnx-int8")
    metrics = artifact.manifest.evidence[-1].metrics
    assert metrics[Metric.AGREEMENT] >= 0.95
    outputs = artifact.manifest.contract.outputs
    assert outputs[0].name == ("scores" if kind == "onnx" else "logits")
    assert outputs[0].labels == "labels.txt"
    assert main(["build", "--quiet", "--project", str(toml)]) == 0


def test_changed_external_data_is_another_checkpoint(project: Path) -> None:
    from edgeship.pipeline.workspace import open_workspace
    from edgeship.project_file import read_project

    toml = project / "edgeship.toml"
    toml.write_text(toml.read_text().replace(WEIGHTS, write_source(project, "onnx")))
    before = open_workspace(read_project(toml)).checkpoint_sha256()
    data = project / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"\1")
    assert open_workspace(read_project(toml)).checkpoint_sha256() != before


def test_a_changed_shard_is_another_checkpoint(project: Path) -> None:
    from edgeship.pipeline.workspace import open_workspace
    from edgeship.project_file import read_project

    index = project / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "bright.safetensors"}}))
    toml = project / "edgeship.toml"
    toml.write_text(toml.read_text().replace('"bright.safetensors"', f'"{index.name}"'))
    before = open_workspace(read_project(toml)).checkpoint_sha256()
    shard = project / "bright.safetensors"
    shard.write_bytes(shard.read_bytes() + b"\1")
    assert open_workspace(read_project(toml)).checkpoint_sha256() != before


def test_a_program_that_would_run_code_ends_the_build_with_exit_9(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import zipfile

    toml = project / "edgeship.toml"
    toml.write_text(toml.read_text().replace(WEIGHTS, write_source(project, "program")))
    with zipfile.ZipFile(project / "m.pt2", "a") as archive:
        archive.writestr("m/data/constants/opaque_obj_0", b"cos\nsystem\n(S'true'\ntR.")
    assert main(["build", "--quiet", "--project", str(toml)]) == 9
    assert "opaque_obj_0" in capsys.readouterr().err


def test_what_was_done_to_load_the_weights_is_in_the_manifest(project: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = project / "bright.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    assert main(["build", "--quiet", "--project", str(project / "edgeship.toml")]) == 0
    notes = read_artifact(project / "build/raspberry-pi-4/onnx-int8").manifest.notes
    assert any("float16" in note or "F16" in note or "half" in note for note in notes), notes
