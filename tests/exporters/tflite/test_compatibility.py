import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeship.artifact import RuntimeNeed
from edgeship.errors import ExportFailed
from edgeship.exporters.tflite.compatibility import runtime_compatibility
from edgeship.exporters.tflite.flatbuffer import ModelT, write_model
from edgeship.exporters.tflite.versions import set_versions
from edgeship.targets.target import Runtime, RuntimeFact

Make = Callable[..., ModelT]
LITERT: Final = RuntimeFact(name=Runtime.LITERT, version="2.3.0")
TFLITE: Final = RuntimeFact(name=Runtime.TFLITE_RUNTIME, version="2.14.0")
ROW: Final = (1, 4)
PYTHON: Final = Path(__file__).parents[3] / ".cache/tflite/bin/python"
INVOKE: Final = """
import sys
from tflite_runtime.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
interpreter.invoke()
"""


def single(handmade: Make, operator: str, *kinds: str, module: str = "body.act") -> ModelT:
    """One operator with inputs of these types, and an output of the first one."""
    names = [f"x{index}" for index in range(len(kinds))]
    output = f"{module}/{operator.lower()}"
    tables = handmade(
        {
            **{name: (kind, ROW) for name, kind in zip(names, kinds, strict=True)},
            output: (kinds[0], ROW),
        },
        [(operator, tuple(names), output, {})],
        names,
        [output],
    )
    set_versions(tables)
    return tables


def needs(**minimum: str) -> tuple[RuntimeNeed, ...]:
    return tuple(RuntimeNeed(runtime=name, min=release) for name, release in minimum.items())


def test_a_plain_file_runs_everywhere_from_the_release_of_its_versions_on(handmade: Make) -> None:
    found = runtime_compatibility(single(handmade, "GELU", "INT8"), [LITERT, TFLITE])
    assert found.any_of == needs(litert="2.0.2", tflite_runtime="2.9.0")
    assert found.notes == ()


def test_the_targets_order_is_kept(handmade: Make) -> None:
    found = runtime_compatibility(single(handmade, "RELU", "INT8"), [TFLITE, LITERT])
    assert found.any_of == needs(tflite_runtime="2.1.0", litert="2.0.2")


def test_a_version_that_is_too_new_is_named_with_its_release(handmade: Make) -> None:
    tables = single(handmade, "GATHER_ND", "BOOL", "INT32", module="embeddings")
    found = runtime_compatibility(tables, [LITERT, TFLITE])
    assert found.any_of == needs(litert="2.0.2")
    assert found.notes == (
        "tflite_runtime 2.14.0 cannot run this file: GATHER_ND in embeddings (version 5,"
        " BOOL/INT32) needs TensorFlow 2.16.0",
    )


def test_a_kernel_without_the_type_is_named_though_the_version_is_known(handmade: Make) -> None:
    found = runtime_compatibility(single(handmade, "DIV", "INT8", "INT8"), [LITERT, TFLITE])
    assert found.any_of == needs(litert="2.0.2")
    assert found.notes == (
        "tflite_runtime 2.14.0 cannot run this file: it has no kernel for DIV in body.act"
        " (version 1, INT8/INT8)",
    )
    found = runtime_compatibility(single(handmade, "DIV", "FLOAT32", "FLOAT32"), [TFLITE])
    assert found.any_of == needs(tflite_runtime="1.6.0")


def test_int8_products_wait_for_the_litert_that_computes_them_right(handmade: Make) -> None:
    tables = single(handmade, "BATCH_MATMUL", "INT8", "INT8")
    assert runtime_compatibility(tables, [LITERT]).any_of == needs(litert="2.1.3")
    older = RuntimeFact(name=Runtime.LITERT, version="2.1.0")
    found = runtime_compatibility(tables, [older, TFLITE])
    assert found.any_of == needs(tflite_runtime="2.3.0")
    assert "BATCH_MATMUL in body.act (version 2, INT8/INT8) needs LiteRT 2.1.3" in found.notes[0]
    tables = single(handmade, "BATCH_MATMUL", "FLOAT32", "FLOAT32")
    assert runtime_compatibility(tables, [older]).any_of == needs(litert="2.0.2")


def test_an_operator_that_only_a_converter_knows_fails_the_export(handmade: Make) -> None:
    with pytest.raises(ExportFailed) as caught:
        runtime_compatibility(single(handmade, "STABLEHLO_LOGISTIC", "FLOAT32"), [LITERT, TFLITE])
    first, second = caught.value.problems
    assert str(first) == (
        "tflite: module body.act: litert 2.3.0 cannot run STABLEHLO_LOGISTIC: expected a runtime of"
        " the target that can, found it has no kernel for STABLEHLO_LOGISTIC in body.act (version"
        " 1, FLOAT32); put another operator in its place, or choose a target with a newer runtime"
    )
    assert "tflite_runtime 2.14.0" in second.what


def test_an_operator_that_only_litert_has_needs_the_release_that_was_measured(
    handmade: Make,
) -> None:
    found = runtime_compatibility(single(handmade, "STABLEHLO_ADD", "FLOAT32"), [LITERT, TFLITE])
    assert found.any_of == needs(litert="2.3.0")


def test_an_older_runtime_is_held_against_its_own_release(handmade: Make) -> None:
    old = RuntimeFact(name=Runtime.TFLITE_RUNTIME, version="2.8.0")
    with pytest.raises(ExportFailed, match=r"needs TensorFlow 2\.9\.0"):
        runtime_compatibility(single(handmade, "GELU", "INT8"), [old])


def test_a_long_list_of_reasons_is_cut(handmade: Make) -> None:
    kinds: list[Any] = ["DIV", "SQRT", "LOG", "RSQRT"]
    types = {"DIV": "INT8", "SQRT": "INT8", "LOG": "INT8", "RSQRT": "INT16"}
    tensors = {f"{kind}/{part}": (types[kind], ROW) for kind in kinds for part in ("x", "y")}
    tables = handmade(
        tensors,
        [(kind, (f"{kind}/x",) * (2 if kind == "DIV" else 1), f"{kind}/y", {}) for kind in kinds],
        [f"{kind}/x" for kind in kinds],
        [f"{kind}/y" for kind in kinds],
    )
    set_versions(tables)
    (note,) = runtime_compatibility(tables, [LITERT, TFLITE]).notes
    assert note.endswith("; and 1 more")
    assert note.count(";") == 3


@pytest.mark.parametrize(
    ("operator", "kinds"),
    [("DIV", ("INT8", "INT8")), ("GELU", ("INT16",)), ("MUL", ("INT8", "INT8"))],
)
def test_tflite_runtime_refuses_what_is_said_of_it(
    handmade: Make, tmp_path: Path, operator: str, kinds: tuple[str, ...]
) -> None:
    if not PYTHON.exists():
        pytest.skip("no tflite-runtime 2.14.0: make fixtures")
    tables = single(handmade, operator, *kinds)
    for tensor in tables.subgraphs[0].tensors:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [0]
    file = tmp_path / "single.tflite"
    file.write_bytes(write_model(tables))
    done = subprocess.run(
        [PYTHON, "-c", INVOKE, str(file)], capture_output=True, text=True, check=False
    )
    is_said = bool(runtime_compatibility(tables, [LITERT, TFLITE]).notes)
    assert is_said == (operator != "MUL")
    assert (done.returncode != 0) == is_said, done.stderr
