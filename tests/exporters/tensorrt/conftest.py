"""Graphs as text, and what ONNX Runtime makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.activations import observed_tensors


class MakeGraph(Protocol):
    def __call__(
        self, text: str, seed: int = 0, **constants: tuple[int, ...] | np.ndarray
    ) -> onnx.ModelProto: ...


class Run(Protocol):
    def __call__(
        self,
        proto: onnx.ModelProto,
        inputs: Mapping[str, np.ndarray] | None = None,
        *,
        is_optimized: bool = True,
        names: Sequence[str] = (),
    ) -> dict[str, np.ndarray]: ...


@pytest.fixture(scope="session")
def make_graph() -> MakeGraph:
    """Parse `net (...) => (...) {...}` at opset 18; a shape stands for random float32 weights."""

    def make(
        text: str, seed: int = 0, **constants: tuple[int, ...] | np.ndarray
    ) -> onnx.ModelProto:
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{text}')
        generator = np.random.default_rng(seed)
        for node in proto.graph.node:
            node.name = f"n_{node.output[0]}"
        for name, given in constants.items():
            if isinstance(given, tuple):
                fan = math.prod(given[1:]) or 1
                values = (generator.standard_normal(given) / np.sqrt(fan)).astype(np.float32)
            else:
                values = given
            proto.graph.initializer.append(numpy_helper.from_array(values, name))
        onnx.checker.check_model(proto, full_check=True)
        return proto

    return make


@pytest.fixture(scope="session")
def run() -> Run:
    """Outputs of a model, or the tensors that are named, by name; inputs are random."""

    def run_model(
        proto: onnx.ModelProto,
        inputs: Mapping[str, np.ndarray] | None = None,
        *,
        is_optimized: bool = True,
        names: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        if names:
            copy = onnx.ModelProto()
            copy.CopyFrom(proto)
            del copy.graph.output[:]
            copy.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, names))
            proto = copy
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        if not is_optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        wanted = [item.name for item in session.get_outputs()]
        values = session.run(wanted, dict(inputs or random_inputs(proto)))
        return dict(zip(wanted, values, strict=True))

    return run_model


def random_inputs(proto: onnx.ModelProto, seed: int = 5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    found = {}
    for value in proto.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = (generator.standard_normal(shape) * 2).astype(kind)
    return found


@pytest.fixture(scope="session")
def observed(run: Run) -> Callable[[onnx.ModelProto], Ranges]:
    """Ranges of a Graph on sixteen random inputs."""

    def observe(proto: onnx.ModelProto) -> Ranges:
        inputs = {value.name for value in proto.graph.input}
        names = [name for name in observed_tensors(proto) if name not in inputs]
        found: dict[str, Range] = {}
        for seed in range(16):
            given = random_inputs(proto, seed)
            for name, values in {**given, **run(proto, given, names=names)}.items():
                low, high = float(values.min()), float(values.max())
                if name in found:
                    low, high = min(low, found[name].low), max(high, found[name].high)
                found[name] = Range(low=low, high=high)
        return Ranges(by_name=found, dead=(), masks=())

    return observe


@pytest.fixture(scope="session")
def unit_ranges() -> Callable[[onnx.ModelProto], Ranges]:
    """-1 to the number at the end of each tensor's name, or to 1: sizes that tell tensors apart."""

    def ranges(proto: onnx.ModelProto) -> Ranges:
        found = {}
        for name in observed_tensors(proto):
            number = re.search(r"\d+$", name)
            found[name] = Range(low=-1, high=float(number.group()) if number else 1.0)
        return Ranges(by_name=found, dead=(), masks=())

    return ranges
