import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeship.exporters.tensorrt.kit.build import require_buildable
from edgeship.exporters.tensorrt.kit.kit_file import read_kit
from edgeship.exporters.tensorrt.kit.stopped import Stopped


@pytest.fixture
def kit(tmp_path: Path, kits: SimpleNamespace) -> Path:
    path: Path = kits.write_kit(tmp_path / "kit")
    return path


def change(kit: Path, kits: SimpleNamespace, **changes: object) -> None:
    described = json.loads((kit / "kit.json").read_text())
    (kit / "kit.json").write_text(json.dumps(described | changes))
    kits.seal(kit, "10.3.0")


def test_a_kit_is_read(kit: Path) -> None:
    found = read_kit(str(kit))
    assert [graph.name for graph in found.graphs] == ["fp16", "int8"]
    told = {"fp16": True, "int8": True, "strongly_typed": False, "float32_nodes": {}}
    assert found.graphs[1].flags == told
    assert (found.tensorrt, found.accepts, found.sm) == ((10, 3, 0), "10.3", "8.7")
    assert Path(found.golden_inputs["image"]).stat().st_size == 3 * 4 * 4 * 4
    for graph in found.graphs:
        require_buildable(found, graph)


@pytest.mark.parametrize("name", ["int8.onnx", "kit.json", "golden/golden.json", "build_engine.py"])
def test_a_file_that_was_changed_is_named(kit: Path, name: str) -> None:
    content = bytearray((kit / name).read_bytes())
    content[-2] ^= 1
    (kit / name).write_bytes(content)
    with pytest.raises(Stopped, match=f"^{name} is not the file that was sealed") as caught:
        read_kit(str(kit))
    assert caught.value.outcome == "damaged"


def test_a_manifest_that_was_changed_is_damaged(kit: Path) -> None:
    manifest = json.loads((kit / "manifest.json").read_text())
    manifest["target"] = "another"
    (kit / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Stopped, match="changed after it was sealed"):
        read_kit(str(kit))


def test_other_artifacts_are_no_kits(kit: Path, kits: SimpleNamespace) -> None:
    (kit / "kit.json").unlink()
    kits.seal(kit, "10.3.0")
    with pytest.raises(Stopped, match=r"lists no kit\.json"):
        read_kit(str(kit))
    with pytest.raises(Stopped, match="cannot be read"):
        read_kit(str(kit / "golden"))


@pytest.mark.parametrize(
    "changes", [{"schema": 2}, {"graphs": [{}]}, {"tensorrt": {}}, {"workspace_share": "all"}]
)
def test_a_description_that_cannot_be_read_is_damaged(
    kit: Path, kits: SimpleNamespace, changes: dict[str, object]
) -> None:
    change(kit, kits, **changes)
    with pytest.raises(Stopped, match=r"kit\.json cannot be read") as caught:
        read_kit(str(kit))
    assert caught.value.outcome == "damaged"


def test_the_layers_that_stay_in_fp32_are_part_of_what_tensorrt_is_told(
    tmp_path: Path, kits: SimpleNamespace
) -> None:
    nodes = {"n_top": ["values", None]}
    kit = kits.write_kit(tmp_path / "kit", float32_nodes=nodes)
    assert [one.flags["float32_nodes"] for one in read_kit(str(kit)).graphs] == [nodes, nodes]
    described = json.loads((kit / "kit.json").read_text())
    del described["graphs"][1]["float32_nodes"]
    change(kit, kits, graphs=described["graphs"])
    with pytest.raises(Stopped, match=r"kit\.json cannot be read: KeyError: 'float32_nodes'"):
        read_kit(str(kit))


def test_more_than_a_quarter_of_the_memory_is_not_taken(kit: Path, kits: SimpleNamespace) -> None:
    change(kit, kits, workspace_share=0.9)
    assert read_kit(str(kit)).workspace_share == 0.25


@pytest.mark.parametrize(
    ("graph", "flags", "precision", "message"),
    [
        ("fp16", {"int8": True}, "fp16", "would invent the ranges"),
        ("fp16", {}, "int8", "would invent the ranges"),
        ("int8", {"int8": False}, "fp16", "is not built for INT8"),
    ],
)
def test_int8_and_quantization_go_together(
    kit: Path,
    kits: SimpleNamespace,
    graph: str,
    flags: dict[str, bool],
    precision: str,
    message: str,
) -> None:
    plain = {"fp16": True, "int8": False, "strongly_typed": False}
    entry = {"name": "x", "file": f"{graph}.onnx", "precision": precision, "flags": plain | flags}
    entry["float32_nodes"] = {}
    change(kit, kits, graphs=[entry])
    found = read_kit(str(kit))
    with pytest.raises(Stopped, match=message) as caught:
        require_buildable(found, found.graphs[0])
    assert caught.value.outcome == "refused"


def test_another_opset_than_described_is_damaged(kit: Path, kits: SimpleNamespace) -> None:
    change(kit, kits, opset=13)
    found = read_kit(str(kit))
    with pytest.raises(Stopped, match=r"has opset 17, and kit\.json says 13"):
        require_buildable(found, found.graphs[0])
