import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeship.artifact import Requirements, RuntimeNeed
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Lowered, Payload, Recipe
from edgeship.exporters.registry import EXPORTERS, load_exporter
from edgeship.project import Rule
from edgeship.vocabulary import Format, Role

CONTRACT = Contract(
    inputs=(TensorSpec(name="image", shape=(1, 3, 8, 8)),),
    outputs=(TensorSpec(name="logits", shape=(1, 2), labels="labels.txt"),),
)


def test_a_recipe_begins_with_the_whole_model() -> None:
    rules = (Rule(match="layer3.*", precision="fp32"), Rule(match="layer3.0", precision="int8"))
    assert Recipe(precision="int8", rules=rules).to_json() == [
        {"match": "*", "precision": "int8"},
        {"match": "layer3.*", "precision": "fp32"},
        {"match": "layer3.0", "precision": "int8"},
    ]


def test_a_lowered_file_survives_json_and_a_move(tmp_path: Path) -> None:
    lowered = Lowered(
        file=tmp_path / "a/graph.onnx",
        sha256="0" * 64,
        contract=CONTRACT,
        runtime="onnxruntime",
        observed=("image", "relu"),
    )
    value = json.loads(json.dumps(lowered.to_json()))
    assert str(tmp_path) not in json.dumps(value)
    moved = Lowered.from_json(value, tmp_path / "b")
    assert moved.file == tmp_path / "b/graph.onnx"
    assert Lowered.from_json(value, tmp_path / "a") == lowered


def test_a_payload_survives_json() -> None:
    payload = Payload(
        files={"model.onnx": Role.MODEL},
        contract=CONTRACT,
        requires=Requirements(
            any_of=(RuntimeNeed(runtime="onnxruntime", min="1.14"),), memory_bytes=4096
        ),
        notes=("computed in float32: 1 ReduceMean",),
        output_steps={"logits": 0.125},
    )
    assert Payload.from_json(json.loads(json.dumps(payload.to_json()))) == payload


@pytest.mark.parametrize("format_", EXPORTERS)
def test_every_exporter_of_the_table_loads_and_says_what_it_needs(format_: Format) -> None:
    tools = load_exporter(format_).tools
    assert tools.extra == ("onnx" if format_ is Format.TENSORRT else format_)  # the same tools
    assert tools.packages
    assert min(tools.lower_version, tools.emit_version) >= 1


def test_looking_exporters_up_imports_no_vendor_package() -> None:
    code = (
        "import sys\nfrom edgeship.exporters.registry import EXPORTERS, load_exporter\n"
        "for name in EXPORTERS: load_exporter(name)\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
