from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeship.calibration.equalize.batch_norm import fold_batch_norms
from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model

ATEN = torch.ops.aten
IMAGE = (1, 4, 8, 8)
BEFORE: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "conv without bias": lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "padding by name": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, 2),
    "transposed and grouped": lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2, bias=False),
}


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.second(self.conv(self.first(self.conv(x))))
        return value


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        value: Tensor = self.norm(y) + y
        return value


def program_of(module: nn.Module, shape: tuple[int, ...] = IMAGE) -> FloatProgram:
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.3, 3, generator=generator)
    module = module.eval().requires_grad_(requires_grad=False)
    output = module(torch.zeros(shape)).shape
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=shape, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=tuple(output), dtype="float32"),),
    )
    return float_program(Model(module=module, contract=contract))


def assert_same_function(program: FloatProgram, module: nn.Module) -> None:
    (spec,) = program.model.contract.inputs
    x = torch.randn(spec.shape, generator=torch.Generator().manual_seed(1))
    expected = module(x.clone()).numpy()
    found = program.canonical().run({"x": x.numpy()})["y"]
    # a weight is rounded once more than in the module: a few units of float32
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", BEFORE)
def test_batch_norm_disappears_into_the_convolution(name: str) -> None:
    conv = BEFORE[name]()
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    module = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())
    program = program_of(module)
    edited = program.copy()
    assert fold_batch_norms(edited) == 1
    assert not edited.calls(ATEN.batch_norm.default)
    assert "0.bias" in dict(edited.canonical().module.named_parameters())
    assert_same_function(edited, module)


def test_batch_norm_disappears_into_a_linear_layer() -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, affine=False))
    program = program_of(module, (3, 5))
    assert fold_batch_norms(program) == 1
    assert_same_function(program, module)


def test_a_norm_over_positions_of_a_linear_layer_stays() -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(4))
    program = program_of(module, (1, 4, 5))
    assert fold_batch_norms(program) == 0
    assert_same_function(program, module)


@pytest.mark.parametrize(
    "module", [Shared(), Branched(), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))]
)
def test_a_norm_that_belongs_to_no_single_layer_stays(module: nn.Module) -> None:
    program = program_of(module)
    count = len(program.calls(ATEN.batch_norm.default))
    assert fold_batch_norms(program) == 0
    assert len(program.calls(ATEN.batch_norm.default)) == count
    assert_same_function(program, module)
