"""Our int8 files against those that TensorFlow's quantizer makes of the same file and ranges."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.flatbuffer import (
    is_constant,
    operator_name,
    operators,
    read_model,
    tensor_name,
    type_name,
)
from edgeship.exporters.tflite.integer import integer_model

pytestmark = pytest.mark.slow
HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
TENSORFLOW: Final = Path(
    os.environ.get("EDGESHIP_TENSORFLOW", ROOT / ".cache/tensorflow/bin/python")
)
SAMPLES: Final = 128
tiny = SimpleNamespace(**run_path(str(HERE / "tiny.py")))


@pytest.fixture(scope="module", params=["resnet", "mobilenet_v2", "mobilenet_v3"])
def files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes, np.ndarray]:
    """Our file, TensorFlow's, and inputs for both."""
    if not TENSORFLOW.exists():
        pytest.skip("make fixtures")
    nets = SimpleNamespace(**run_path(str(HERE / "nets.py")))
    directory = tmp_path_factory.mktemp(request.param)
    content = nets.float_file(request.param, directory / "raw.tflite")
    seen = observed(content, nets.images(64, seed=2))
    (directory / "float.tflite").write_bytes(content)
    (directory / "ranges.json").write_text(json.dumps(seen))
    names = ("float.tflite", "ranges.json", "int8.tflite")
    command = [TENSORFLOW, HERE / "tensorflow_quantizer.py", *(directory / name for name in names)]
    subprocess.run(command, check=True, capture_output=True)
    by_name = {name: Range(low=low, high=high) for name, (low, high) in seen.items()}
    ours = integer_model(content, Ranges(by_name=by_name, dead=(), masks=()))
    theirs = (directory / "int8.tflite").read_bytes()
    return ours, theirs, nets.images(SAMPLES, seed=3)


def observed(content: bytes, images: np.ndarray) -> dict[str, tuple[float, float]]:
    from ai_edge_litert.interpreter import Interpreter

    model = read_model(content)
    tensors = model.subgraphs[0].tensors
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    seen: dict[str, tuple[float, float]] = {}
    for image in images:
        interpreter.set_tensor(model.subgraphs[0].inputs[0], image[None])
        interpreter.invoke()
        for index, tensor in enumerate(tensors):
            if type_name(tensor) == "FLOAT32" and not is_constant(model, tensor):
                values = interpreter.get_tensor(index)
                low, high = seen.get(tensor_name(tensor), (np.inf, -np.inf))
                ends = (min(low, float(values.min())), max(high, float(values.max())))
                seen[tensor_name(tensor)] = ends
    return seen


def integer_outputs(content: bytes, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] == output["dtype"] == np.int8
    scale, zero_point = source["quantization"]
    results = []
    for image in images:
        stored = np.clip(np.round(image[None] / scale) + zero_point, -128, 127)
        interpreter.set_tensor(source["index"], stored.astype(np.int8))
        interpreter.invoke()
        results.append(interpreter.get_tensor(output["index"]).astype(np.int32))
    return np.concatenate(results)


def structure(content: bytes) -> list[tuple[str, list[str]]]:
    model = read_model(content)
    return [
        (
            operator_name(model, operator),
            [tensor_name(subgraph.tensors[i]) for i in (*operator.inputs, *operator.outputs)],
        )
        for subgraph, operator in operators(model)
    ]


def quantization(content: bytes) -> dict[str, Any]:
    return {
        tensor_name(tensor): tensor.quantization
        for tensor in read_model(content).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
    }


def test_both_files_are_integer_and_of_the_same_operators(
    files: tuple[bytes, bytes, np.ndarray],
) -> None:
    ours, theirs, _ = files
    for content in (ours, theirs):
        assert set(tiny.types(content).values()) == {"INT8", "INT32"}
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(tiny.kinds(content))
    assert structure(ours) == structure(theirs)


def test_scales_and_zero_points_are_the_same(files: tuple[bytes, bytes, np.ndarray]) -> None:
    ours, theirs = quantization(files[0]), quantization(files[1])
    assert ours.keys() == theirs.keys()
    for name, mine in ours.items():
        # both divide in double and store float32; one rounding of the width may differ
        np.testing.assert_allclose(mine.scale, theirs[name].scale, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(mine.zeroPoint, theirs[name].zeroPoint, err_msg=name)
        axes = (mine.quantizedDimension, theirs[name].quantizedDimension)
        assert len(mine.scale) == 1 or axes[0] == axes[1]


def test_outputs_are_the_same_within_one_step(files: tuple[bytes, bytes, np.ndarray]) -> None:
    ours, theirs, images = files
    found, expected = (integer_outputs(content, images) for content in (ours, theirs))

    difference = np.abs(found - expected)
    assert len(np.unique(expected)) > 20
    assert (difference <= 1).mean() >= 0.99, f"worst at {difference.argmax()}: {difference.max()}"
