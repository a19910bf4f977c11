from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.tflite.conversion import convert
from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.naming import with_names
from edgeship.exporters.tflite.transposes import remove_transposes
from edgeship.exporters.tflite.versions import set_versions
from edgeship.source.model import Model, example_inputs, output_tensors
from edgeship.vocabulary import Layout

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))
Moves = Any


def test_a_transpose_that_is_an_output_stays_for_it_alone() -> None:
    file = moves.Moves(1, 3, 4, 5)
    turned = file.first()
    pooled = file.reduce("MEAN", turned, (2, 3), keeps=False)
    assert moves.removed(file, turned, pooled)[0] == 0
    again = file.turn(turned, moves.TO_LAST)
    assert moves.removed(file, turned, file.give("RELU", [again], (1, 3, 4, 5)))[0] == 1


def test_a_file_without_any_to_take_out_is_left_alone() -> None:
    file = moves.Moves(1, 3, 4, 5)
    softmax = file.give("SOFTMAX", [file.first()], (1, 5, 3, 4), "SoftmaxOptions", beta=1.0)
    content = file.write(softmax)
    tables = read_model(content)
    assert remove_transposes(tables) == 0
    assert write_model(tables) == write_model(read_model(content))


@given(moves.files())
@settings(max_examples=100, deadline=None)
def test_any_file_keeps_its_values(made: tuple[Moves, list[str]]) -> None:
    file, outputs = made
    moves.removed(file, *outputs)


class Net(nn.Module):
    """Convolution, then what a test gives, then classes where that leaves features."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(*body)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.body(self.stem(image))
        return result


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Gate(nn.Module):
    """Squeeze and excitation, written with a mean and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * gate.view(1, 8, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "before", "after"),
    [
        ((nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 9), nn.ReLU(), nn.Linear(9, 4)), 1, 0),
        ((nn.MaxPool2d(2, 1), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)), 1, 0),
        ((Gate(), nn.Conv2d(8, 8, 3, padding=1), Mean(), nn.Linear(8, 4)), 2, 0),
        ((nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1), Mean(), nn.Linear(8, 4)), 4, 1),
        ((nn.GroupNorm(2, 8), nn.ReLU(), Mean(), nn.Linear(8, 4)), 1, 0),
        ((nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)), 2, 0),
    ],
)
def test_nets_lose_theirs(body: tuple[nn.Module, ...], before: int, after: int) -> None:
    torch.manual_seed(0)
    module = Net(*body).eval().requires_grad_(requires_grad=False)
    image = TensorSpec(name="image", shape=(1, 3, 16, 16), layout=Layout.NCHW)
    (result,) = output_tensors(module(*example_inputs((image,)))).values()
    output = TensorSpec(name="result", shape=tuple(result.shape), dtype="float32")
    model = Model(module=module, contract=Contract(inputs=(image,), outputs=(output,)))
    tables = with_names(convert(model), model.contract)
    content = write_model(tables)
    assert moves.kinds(content).count("TRANSPOSE") == before
    assert remove_transposes(tables) == before - after
    set_versions(tables)
    x = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    inputs = {"image": x.transpose(moves.TO_LAST)}
    found = moves.run_file(write_model(tables), inputs)
    moves.require_equal(moves.run_file(content, inputs), found)
    expected = module(torch.from_numpy(x))
    turned = expected.permute(moves.TO_LAST) if expected.ndim == 4 else expected
    moves.require_equal({"result": turned.numpy()}, found)
