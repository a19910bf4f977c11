"""Kits of one layer, sealed as the exporter seals them, and machines that have a stand-in."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract, TensorSpec
from edgeship.device_tests.board_archive import ARCHIVE_NAME, write_archive
from edgeship.digests import file_sha256, json_sha256
from edgeship.evaluate.golden import run_case, write_golden_pack
from edgeship.exporters.tensorrt.kit.archive import PROGRAM_NAME, program_bytes

HERE = Path(__file__).parent
IMAGE = TensorSpec(name="image", shape=(1, 3, 4, 4))
LOGITS = TensorSpec(name="logits", shape=(1, 5))
STEP = 0.02
"""Of the INT8 graph's outputs."""

Values = Mapping[str, np.ndarray]


def weights() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((48, 5)).astype(np.float32)


def float_model(inputs: Values) -> dict[str, np.ndarray]:
    return {"logits": inputs["image"].reshape(1, -1) @ weights()}


def int8_model(inputs: Values) -> dict[str, np.ndarray]:
    step = np.float32(STEP)
    logits: np.ndarray = np.rint(float_model(inputs)["logits"] / step) * step
    return {"logits": logits.astype(np.float32)}


def write_graph(path: Path, *, is_quantized: bool, opset: int = 17) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values, nodes = "image", []
    constants = [numpy_helper.from_array(weights(), "w")]
    if is_quantized:
        constants.append(numpy_helper.from_array(np.array(0.03, np.float32), "scale"))
        constants.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
        nodes.append(helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]))
        values = "dq"
    nodes.append(helper.make_node("Flatten", [values], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "w"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, LOGITS.shape)],
        constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def write_kit(
    directory: Path,
    *,
    version: str = "10.3.0",
    sm: str = "8.7",
    has_int8: bool = True,
    is_strongly_typed: bool = False,
    memory_bytes: int | None = None,
    float32_nodes: Mapping[str, Sequence[str | None]] | None = None,
) -> Path:
    """A kit for a version of TensorRT and a GPU."""
    directory.mkdir(parents=True)
    contract = Contract(inputs=(IMAGE,), outputs=(LOGITS,))
    cases = []
    for seed in range(2):
        values = np.random.default_rng(seed).standard_normal(IMAGE.shape).astype(np.float32)
        cases.append(
            run_case(
                f"noise {seed}",
                LoadedSample(inputs={"image": values}, pixels=None),
                model_inputs=(IMAGE,),
                contract=contract,
                artifact=int8_model if has_int8 else float_model,
                reference=float_model,
            )
        )
    write_golden_pack(directory, cases, contract, output_steps={"logits": STEP})
    names = ["fp16", "int8"] if has_int8 else ["fp16"]
    graphs = []
    for name in names:
        write_graph(directory / f"{name}.onnx", is_quantized=name == "int8")
        typed = {"fp16": False, "int8": False, "strongly_typed": True}
        weak = {"fp16": True, "int8": name == "int8", "strongly_typed": False}
        flags = typed if is_strongly_typed else weak
        entry = {"name": name, "file": f"{name}.onnx", "precision": name, "flags": flags}
        entry["float32_nodes"] = dict(float32_nodes or {})
        graphs.append(entry)
    described = {
        "schema": 1,
        "tensorrt": {"version": version, "accepts": ".".join(version.split(".")[:2]), "sm": sm},
        "graphs": graphs,
        "opset": 17,
        "inputs": contract.to_json()["inputs"],
        "outputs": contract.to_json()["outputs"],
        "workspace_share": 0.25,
    }
    (directory / "kit.json").write_text(json.dumps(described))
    (directory / PROGRAM_NAME).write_bytes(program_bytes())
    write_archive(directory / ARCHIVE_NAME)
    seal(directory, version, memory_bytes=memory_bytes)
    return directory


def seal(directory: Path, version: str, *, memory_bytes: int | None = None) -> None:
    """Write the manifest over what is in the directory."""
    roles = {".onnx": "model", ".bin": "golden", ".py": "program", ".pyz": "program"}
    files = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != "manifest.json":
            role = "golden" if name.startswith("golden/") else roles.get(path.suffix, "program")
            size = path.stat().st_size
            entry = {"name": name, "role": role, "bytes": size, "sha256": file_sha256(path)}
            files.append(entry)
    contract = Contract(inputs=(IMAGE,), outputs=(LOGITS,))
    facts: dict[str, Any] = {
        "schema": 1,
        "edgeship": "0",
        "target": "a-jetson",
        "format": "tensorrt",
        "precision": "kit",
        "files": files,
        "source": {},
        "tools": {},
        "contract": contract.to_json(),
        "requires": {
            "any_of": [{"runtime": "tensorrt", "min": version}],
            "isa": [],
            "memory_bytes": memory_bytes,
        },
        "notes": [],
    }
    manifest = facts | {"artifact_id": json_sha256(facts), "evidence": []}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def recorded() -> dict[str, Any]:
    """What the option parsers of trtexec said."""
    value: dict[str, Any] = json.loads((HERE / "data/trtexec_options.json").read_text())
    return value


def unknown_to(version: str, case: Mapping[str, Any]) -> set[str]:
    """Options of a recorded line that its parser left over."""
    parts = case["result"][version].split("; ")
    return {part.split()[-1] for part in parts if "UNKNOWN" in part}


def known_options(version: str) -> set[str]:
    """Options that a release takes: what its source names, without what its parser left over."""
    facts = recorded()
    known = set(facts["versions"][version]["options"])
    return known.difference(*(unknown_to(version, case) for case in facts["cases"]))


def write_machine(
    directory: Path,
    kit: Path,
    *,
    version: str = "10.3.0",
    fail: Mapping[str, str] | None = None,
    int8_ms: float = 1.0,
    soc: str = "nvidia,tegra234",
    available_mib: int = 4096,
) -> Path:
    """A root with /proc, and bin/trtexec: the stand-in of the release nearest to `version`."""
    numbers = [int(part) for part in version.split(".")]
    major_minor = f"{numbers[0]}.{numbers[1]}"
    weights = (1000, 100, 1) if numbers[0] < 10 else (10000, 100, 1)
    proc = directory / "proc"
    (proc / "device-tree").mkdir(parents=True)
    (proc / "device-tree/compatible").write_bytes(f"nvidia,board\0{soc}\0".encode())
    (proc / "meminfo").write_text(
        f"MemTotal:       8000000 kB\nMemAvailable:   {available_mib << 10} kB\n"
    )
    (directory / "bin").mkdir()
    program = directory / "bin/trtexec"
    program.write_text(f"#!{sys.executable}\n" + (HERE / "stand_in_trtexec.py").read_text())
    program.chmod(0o755)
    config = {
        "version": version,
        "number": str(sum(one * weight for one, weight in zip(numbers, weights, strict=True))),
        "options": sorted(known_options(major_minor)),
        "kit": str(kit),
        "fail": dict(fail or {}),
        "int8_ms": int8_ms,
    }
    (directory / "bin/stand_in.json").write_text(json.dumps(config))
    return directory
