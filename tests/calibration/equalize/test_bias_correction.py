from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from edgeship.calibration.equalize.attempt import attempt
from edgeship.calibration.equalize.bias_correction import (
    BiasCorrection,
    rounding_error,
    weight_levels,
)
from edgeship.calibration.equalize.cross_layer.layer import layers_of
from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.rewrite import NothingToRewrite, Use, load_rewrite
from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Recipe, Source
from edgeship.exporters.registry import load_exporter
from edgeship.project import RangePolicy
from edgeship.runtimes.adapter import encode_inputs
from edgeship.runtimes.protocol import load_observer
from edgeship.source.model import Model
from edgeship.targets import load_target
from edgeship.vocabulary import Format, RewriteName

TARGET = load_target("raspberry-pi-4")
USE = Use(format=Format.TFLITE, target=TARGET, is_symmetric=False)
SHAPE = (1, 4, 9, 9)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.depth = nn.Conv2d(6, 6, 3, 2, 1, groups=6)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu_(self.up(F.relu(self.depth(x))))
        value: Tensor = self.head(x.mean((2, 3)))
        return value


def net() -> Net:
    torch.manual_seed(0)
    module = Net()
    assert module.norm.running_var is not None
    module.norm.running_var.uniform_(0.2, 2)
    return module


def samples(count: int = 6) -> list[Mapping[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{"x": random.uniform(0, 2, SHAPE).astype(np.float32)} for _ in range(count)]


def model_of(module: nn.Module) -> Model:
    module = module.eval().requires_grad_(requires_grad=False)
    output = tuple(module(torch.zeros(SHAPE)).shape)
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=output, dtype="float32"),),
    )
    return Model(module=module, contract=contract)


def rounded(weight: Tensor, axis: int, levels: int) -> Tensor:
    rows = weight.movedim(axis, 0).numpy().astype(np.float64)
    steps = np.abs(rows).reshape(len(rows), -1).max(1).reshape(-1, *[1] * (rows.ndim - 1)) / levels
    return torch.from_numpy(np.rint(rows / steps) * steps).float().movedim(0, axis)


def parameters(program: FloatProgram) -> dict[str, Tensor]:
    return dict(program.module.named_parameters())


@pytest.mark.parametrize("levels", [127, 64])
def test_the_mean_output_of_a_rounded_layer_is_that_of_the_float_layer(levels: int) -> None:
    target = replace(
        TARGET,
        formats={
            **TARGET.formats,
            Format.ONNX: replace(TARGET.formats[Format.ONNX], reduce_range=levels == 64),
        },
    )
    use = replace(USE, format=Format.ONNX, target=target)
    assert weight_levels(use) == levels
    torch.manual_seed(1)
    module = nn.Conv2d(4, 5, 3, padding=2, bias=False)
    program = float_program(model_of(module))
    after = parameters(attempt(BiasCorrection(), program, samples(), use).program)
    x = torch.from_numpy(np.concatenate([item["x"] for item in samples()]))
    expected = module(x).mean((0, 2, 3))
    weight = rounded(module.weight, 0, levels)
    before = F.conv2d(x, weight, None, padding=2).mean((0, 2, 3))
    found = F.conv2d(x, weight, after["bias"], padding=2).mean((0, 2, 3))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert float((before - expected).abs().max()) > 1e-4


def test_each_layer_is_corrected_by_what_the_float_model_gives_it() -> None:
    module = net()
    program = float_program(model_of(module))
    made = attempt(BiasCorrection(), program, samples(), USE)
    after = parameters(made.program)
    with torch.no_grad():
        x = torch.from_numpy(np.concatenate([item["x"] for item in samples()]))
        gain = module.norm.weight / torch.sqrt(torch.as_tensor(module.norm.running_var) + 1e-5)
        folded = module.conv.weight * gain.reshape(-1, 1, 1, 1)
        first = F.relu(module.norm(module.conv(x)))
        second = F.relu(module.depth(first))
        third = F.relu(module.up(second)).mean((2, 3))
        errors = [
            F.conv2d(x, rounded(folded, 0, 127) - folded, padding=1),
            F.conv2d(
                first, rounded(module.depth.weight, 0, 127) - module.depth.weight, None, 2, 1, 1, 6
            ),
            F.linear(third, rounded(module.head.weight, 0, 127) - module.head.weight),
        ]
        shift = torch.as_tensor(module.norm.bias) - torch.as_tensor(module.norm.running_mean) * gain
        biases = [shift, *(torch.as_tensor(layer.bias) for layer in (module.depth, module.head))]
    for name, bias, error in zip(("conv", "depth", "head"), biases, errors, strict=True):
        axes = tuple(axis for axis in range(error.dim()) if axis != 1)
        expected = bias - error.mean(axes)
        torch.testing.assert_close(after[f"{name}.bias"], expected, atol=2e-6, rtol=0)
    assert not torch.equal(after["up.bias"], torch.as_tensor(module.up.bias))
    assert made.difference > 1e-5
    (line,) = made.lines
    assert re.match(r"4 biases corrected .* up to 0\.\d\d% .*\((conv|depth|up|head)\)", line)


def test_a_transposed_weight_is_rounded_by_output_in_each_group() -> None:
    program = float_program(model_of(net()))
    (up,) = (item for item in layers_of(program) if item.is_transposed)
    weight = program.tensor(up.weight)  # [6 inputs, 2 outputs of each group, 2, 2]
    error = rounding_error(up, program, 127)
    for group in range(2):
        block = weight[3 * group : 3 * group + 3]
        expected = rounded(block, 1, 127) - block
        torch.testing.assert_close(error[3 * group : 3 * group + 3], expected, atol=6e-8, rtol=0)


def test_a_weight_of_zeros_stays_finite() -> None:
    module = nn.Conv2d(4, 3, 1, bias=False)
    module.weight.data[1] = 0
    program = float_program(model_of(module))
    after = parameters(attempt(BiasCorrection(), program, samples(), USE).program)
    assert bool(after["bias"].isfinite().all())
    assert after["bias"][1] == 0


def test_kept_layers_keep_their_biases() -> None:
    program = float_program(model_of(net()))
    use = replace(USE, kept_modules=("d*", "up"))
    after = parameters(attempt(BiasCorrection(), program, samples(), use).program)
    before = parameters(program)
    assert torch.equal(after["depth.bias"], before["depth.bias"])
    assert torch.equal(after["up.bias"], before["up.bias"])
    assert not torch.equal(after["head.bias"], before["head.bias"])
    with pytest.raises(NothingToRewrite, match="no convolution and no linear layer"):
        attempt(BiasCorrection(), program, samples(), replace(USE, kept_modules=("*",)))


def test_a_layer_that_runs_twice_gets_a_bias_for_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            value: Tensor = self.conv(self.conv(x) * 3)
            return value

    torch.manual_seed(0)
    program = float_program(model_of(Twice()))
    after = parameters(attempt(BiasCorrection(), program, samples(), USE).program)
    biases = [value for name, value in after.items() if "bias" in name]
    assert len(biases) == 2
    assert not torch.equal(*biases)


def test_it_is_found_by_its_name() -> None:
    assert isinstance(load_rewrite(RewriteName.BIAS_CORRECTION), BiasCorrection)


@pytest.mark.slow
def test_weights_are_rounded_as_the_onnx_file_has_them(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5)
    )
    model, exporter = model_of(module), load_exporter(Format.ONNX)
    program = float_program(model)
    (tmp_path / "lower").mkdir()
    source = Source(load=lambda: model, read_probes=lambda: samples(2), checkpoint=tmp_path)
    lowered = exporter.lower(source, tmp_path / "lower")
    inputs = model.contract.inputs
    feed = ((str(n), encode_inputs(x, inputs, lowered.contract)) for n, x in enumerate(samples()))
    with load_observer(lowered.runtime).observe(lowered.file, lowered.observed) as session:
        ranges = solve_ranges(observe(feed, session.run, lowered.layout), RangePolicy())
    payload = exporter.emit(lowered, ranges, Recipe(precision="int8"), TARGET, tmp_path)
    proto = onnx.load(tmp_path / next(iter(payload.files)))
    stored = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    written = [
        stored[node.input[0]].astype(np.float64)
        * np.expand_dims(stored[node.input[1]], tuple(range(1, stored[node.input[0]].ndim)))
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in stored
        and stored[node.input[0]].dtype == np.int8
    ]
    levels = weight_levels(replace(USE, format=Format.ONNX))
    for layer, values in zip(layers_of(program), written, strict=True):
        weight = program.tensor(layer.weight).numpy()
        expected = weight + rounding_error(layer, program, levels).numpy()
        np.testing.assert_allclose(values.reshape(weight.shape), expected, atol=1e-7)
