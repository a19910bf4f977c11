from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.artifact import RuntimeNeed
from edgeship.errors import IntegrityRefused
from edgeship.targets import Target
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility import misfits, unchecked
from edgeship.targets.compatibility_files import FileNeeds
from edgeship.targets.compatibility_runtimes import comparable_release, obstacle, usable_runtimes
from edgeship.vocabulary import Format

rows = SimpleNamespace(**run_path(str(Path(__file__).with_name("rows.py"))))
PI_4: Final[Target] = rows.PI_4
LITERT: Final[FoundRuntime] = rows.LITERT
TFLITE: Final[FoundRuntime] = rows.TFLITE
ORT: Final[FoundRuntime] = rows.ORT
LLAMA: Final[FoundRuntime] = rows.LLAMA
BOARD: Final[BoardFacts] = rows.BOARD
manifest = rows.manifest
onnx = rows.onnx
only = rows.only


def test_no_runtime_names_what_the_catalogue_knows() -> None:
    problem = only(misfits(manifest(), replace(BOARD, runtimes=(ORT,)), PI_4))
    assert problem.expected == "litert from 2.0.2 on or tflite_runtime from 2.12.0 on"
    assert problem.found == "onnxruntime 1.31.1"
    assert problem.remedy == "install litert 2.3.0 or tflite_runtime 2.14.0 there"
    assert problem.where == "raspberry-pi-4/tflite-int8"


def test_another_artifact_of_the_build_that_fits_is_named() -> None:
    facts = replace(BOARD, runtimes=(ORT,))
    large = replace(
        onnx(), requires=replace(onnx().requires, memory_bytes=10**12), precision="fp32"
    )
    others = [manifest(precision="fp32"), large, onnx()]
    problem = only(misfits(manifest(), facts, PI_4, others=others))
    assert problem.remedy.endswith(", or take raspberry-pi-4/onnx-int8, which fits")


def test_another_python_than_the_catalogue_knows_the_versions_for_is_told() -> None:
    facts = replace(BOARD, runtimes=(), python="3.13.5")
    assert only(misfits(manifest(), facts, PI_4)).remedy.endswith(
        "(known for Python 3.11 of Raspberry Pi OS 12 (bookworm), 64 bit; the board has 3.13.5)"
    )


def test_no_python_is_told() -> None:
    facts = replace(BOARD, runtimes=(), python=None)
    problem = only(misfits(manifest(), facts, PI_4))
    assert problem.found == "no runtime, and no Python to look for one with"


def test_runtimes_that_are_older_or_broken_say_which() -> None:
    broken = replace(TFLITE, problem="it needs numpy below 2, there is 2.1")
    facts = replace(BOARD, runtimes=(broken, replace(LITERT, version="1.4.0")))
    assert only(misfits(manifest(), facts, PI_4)).found == (
        "litert 1.4.0, which is older; tflite_runtime 2.14.0, but it needs numpy below 2, "
        "there is 2.1"
    )
    assert usable_runtimes(manifest(), replace(facts, runtimes=(*facts.runtimes, TFLITE))) == (
        TFLITE,
    )


def test_what_is_copied_along_counts_as_a_runtime() -> None:
    gguf = manifest(Format.GGUF, RuntimeNeed(runtime="llama.cpp", min="0.5.0"), precision="q4_0")
    bare = replace(BOARD, runtimes=())
    assert len(misfits(gguf, bare, PI_4)) == 1
    brought = replace(LLAMA, version=None)
    assert misfits(gguf, bare, PI_4, brought=[brought]) == []
    assert usable_runtimes(gguf, BOARD, brought=[brought]) == (brought, LLAMA)


@pytest.mark.parametrize(
    ("version", "kind", "release"),
    [
        ("0.5.0", "program", "0.5.0"),
        ("0.5.0-dev (build 1, commit 0c1e570)", "program", "0.5.0"),
        ("0.6.1", "program", "0.6.1"),
        ("b4321", "program", None),
        ("4321 (1a2b3c4)", "program", None),
        ("0.3.36", "python", "0.5.0"),
        ("0.3.40", "python", "0.5.0"),
        ("0.3.2", "python", None),
        (None, "python", None),
    ],
)
def test_releases_of_llama_cpp(version: str | None, kind: str, release: str | None) -> None:
    found = FoundRuntime(name="llama.cpp", version=version, kind=kind)
    assert comparable_release(found) == release
    assert obstacle(RuntimeNeed(runtime="llama.cpp", min="0.5.0"), found, None) is None
    gguf = manifest(Format.GGUF, RuntimeNeed(runtime="llama.cpp", min="0.5.0"))
    assert bool(unchecked(gguf, replace(BOARD, runtimes=(found,)))) == (release is None)


@pytest.mark.parametrize(
    ("version", "opset", "ir", "fits"),
    [
        ("1.14.1", 18, 8, True),
        ("1.14.1", 19, 8, False),
        ("1.14.1", 18, 9, False),
        ("1.17.3", 20, 9, True),
        ("1.20.1", 22, 10, False),
        ("1.23.2", 23, 11, True),
        ("1.23.2", 23, 12, False),
        ("1.31.1", 26, 13, True),
    ],
)
def test_opset_and_ir_of_the_file(version: str, opset: int, ir: int, fits: bool) -> None:
    found = replace(ORT, version=version)
    needs = FileNeeds(onnx_opset=opset, onnx_ir=ir)
    text = obstacle(RuntimeNeed(runtime="onnxruntime", min="1.14"), found, needs)
    assert (text is None) == fits
    if text is not None:
        assert str(opset if "opset" in text else ir) in text


def test_the_installed_onnxruntime_agrees_with_the_table(tmp_path: Path) -> None:
    model = pytest.importorskip("onnx").helper
    runtime = pytest.importorskip("onnxruntime")
    need = RuntimeNeed(runtime="onnxruntime", min="1.14")
    found = replace(ORT, version=runtime.__version__)
    for opset in (18, 26, 27):
        value = model.make_tensor_value_info("x", 1, [1])
        out = model.make_tensor_value_info("y", 1, [1])
        graph = model.make_graph([model.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
        proto = model.make_model(graph, opset_imports=[model.make_opsetid("", opset)])
        proto.ir_version = 8
        file = tmp_path / "model.onnx"
        file.write_bytes(proto.SerializeToString())
        try:
            runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            is_taken = True
        except Exception:
            is_taken = False
        needs = FileNeeds(onnx_opset=opset, onnx_ir=8)
        assert (obstacle(need, found, needs) is None) == is_taken, opset


def test_the_model_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes.fromhex("080942021015"))  # IR 9, opset 21 of the default domain
    facts = replace(BOARD, runtimes=(replace(ORT, version="1.19.2"),))
    assert misfits(onnx(), facts, PI_4, model_file=file) == []
    facts = replace(BOARD, runtimes=(replace(ORT, version="1.17.3"),))
    problem = only(misfits(onnx(), facts, PI_4, model_file=file))
    assert problem.found == "onnxruntime 1.17.3, whose highest opset is 20 and the file's 21"
    file.write_bytes(b"not a model")
    with pytest.raises(IntegrityRefused):
        misfits(onnx(), facts, PI_4, model_file=file)


def test_unknown_gguf_types_fit_no_llama_cpp() -> None:
    need = RuntimeNeed(runtime="llama.cpp", min="0.5.0")
    needs = FileNeeds(gguf_version=3, gguf_types=("type 99",), unknown_types=("type 99",))
    assert "no llama.cpp reads type 99" in (obstacle(need, LLAMA, needs) or "")
