import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow
NODES = {"node_MatMul_1": ["logits"]}


def options_of(tmp_path: Path, graph: str) -> dict[str, str]:
    """What the stand-in for trtexec was given, which it keeps in its engine."""
    (record,) = (tmp_path / "cache").glob(f"*/{graph}.json")
    engine = record.parent / json.loads(record.read_text())["file"]
    found: dict[str, str] = json.loads(engine.read_text().partition("ENGINE ")[2])["options"]
    return found


def test_what_kit_json_keeps_in_fp32_reaches_the_program_that_builds(
    tmp_path: Path, kits: SimpleNamespace, build: Callable[..., Any]
) -> None:
    kit = kits.write_kit(tmp_path / "kit", float32_nodes=NODES)
    machine = kits.write_machine(tmp_path / "machine", kit)
    done = build(kit, machine, "--no-bench")
    assert done.status == 0, done.story
    for graph in ("fp16", "int8"):
        options = options_of(tmp_path, graph)
        assert options["--precisionConstraints"] == "obey"
        assert options["--layerPrecisions"] == "node_MatMul_1:fp32"
        assert options["--layerOutputTypes"] == "node_MatMul_1:fp32"


def test_where_it_cannot_be_told_no_engine_is_built_and_it_is_said(
    tmp_path: Path, kits: SimpleNamespace, build: Callable[..., Any]
) -> None:
    kit = kits.write_kit(
        tmp_path / "kit", version="8.2.1", sm="5.3", has_int8=False, float32_nodes=NODES
    )
    machine = kits.write_machine(tmp_path / "machine", kit, version="8.2.1", soc="nvidia,tegra210")
    done = build(kit, machine, "--no-bench")
    assert done.status != 0
    assert done.end["outcome"] == "incompatible"
    assert "1 layers must stay in FP32, from node_MatMul_1 on" in done.end["message"]
    assert not list((tmp_path / "cache").glob("*/*.plan"))
