from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.smoothquant.folding import Fold, find_fold
from edgeship.calibration.equalize.smoothquant.products import products, tensor_uses
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model

SHAPE = (2, 5, 8)
Between = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """What is between a linear layer, or what stands for it, and the last one, which reads it."""

    def __init__(self, between: Between) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maker, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.conv = nn.Conv2d(2, 8, 1)
        self.norm, self.rms = nn.LayerNorm(8), nn.RMSNorm(8)
        self.bare = nn.LayerNorm(8, elementwise_affine=False)
        self.vector = nn.Parameter(torch.rand(8) + 0.5)
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.rows = nn.Parameter(torch.rand(5, 1) + 0.5)
        self.between = between
        with torch.no_grad():
            self.last = nn.Linear(between(self, torch.zeros(SHAPE)).shape[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.last(self.between(self, x))
        return value


def heads(net: Net, x: Tensor) -> Tensor:
    value: Tensor = net.maker(x)
    return value.view(2, 5, 2, 4).transpose(1, 2)


FOLDED: dict[str, Between] = {
    "linear": lambda net, x: net.maker(x),
    "linear and relu": lambda net, x: F.relu(net.maker(x)),
    "relu in place": lambda net, x: F.relu(net.maker(x), inplace=True),
    "norm": lambda net, x: net.norm(x),
    "RMS norm": lambda net, x: net.rms(x),
    "factor": lambda net, x: torch.tanh(x) * net.vector,
    "factor and shift": lambda net, x: net.vector + torch.tanh(x) * net.norm.weight,
    "matrix": lambda net, x: x @ net.matrix,
    "matrix and bias": lambda net, x: torch.addmm(net.vector, x[0], net.matrix),
    "number": lambda net, x: net.maker(x) * 0.3 / 2,
    "gate": lambda net, x: F.silu(net.other(x)) * net.maker(x),
    "over a norm": lambda net, x: net.maker(x) / (1 + net.other(x).abs()),
    "pixels": lambda net, x: net.conv(x.view(1, 2, 5, 8)).flatten(2).transpose(1, 2),
    "attention": lambda net, x: (
        (torch.softmax(x @ x.transpose(-2, -1), -1)[:, None] @ heads(net, x))
        .transpose(1, 2)
        .reshape(2, 5, 8)
    ),
    "fused attention": lambda net, x: (
        F.scaled_dot_product_attention(x[:, None], x[:, None], heads(net, x))
        .transpose(1, 2)
        .reshape(2, 5, 8)
    ),
    "heads that share a value": lambda net, x: (
        net.maker(x)[:, :, None].expand(2, 5, 3, 8).reshape(2, 5, 24)
    ),
}
REFUSED: dict[str, Between] = {
    "an activation that is not homogeneous": lambda net, x: F.gelu(net.maker(x)),
    "one that cuts at 6": lambda net, x: F.relu6(net.maker(x)),
    "a branch": lambda net, x: net.maker(x) + x,
    "another reader": lambda net, x: F.relu(y := net.maker(x)) * y.sum(),
    "a norm without tensors": lambda net, x: net.bare(x),
    "a factor of its own": lambda net, x: (y := net.maker(x)) * y,
    "a product with itself": lambda net, x: (y := net.maker(x)[:, :, :5]) @ y,
    "rows for channels": lambda net, x: net.maker(x).transpose(1, 2),
    "rows mixed with channels": lambda net, x: net.maker(x).reshape(2, 4, 10),
    "sums over channels": lambda net, x: x.new_ones(2, 5, 8) @ net.maker(x).view(2, 8, 5),
    "weights of a sum": lambda net, x: net.maker(x) @ x.transpose(1, 2),
    "a factor of rows": lambda net, x: torch.tanh(x) * net.rows,
    "a tensor that another reads": lambda net, x: (net.maker(x) * net.vector) + net.vector,
    "a tensor of two layers": lambda net, x: net.maker(net.maker(x)),
}


def program_of(between: Between) -> FloatProgram:
    module = Net(between).eval().requires_grad_(requires_grad=False)
    shape = tuple(module(torch.zeros(SHAPE)).shape)
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=shape, dtype="float32"),),
    )
    return float_program(Model(module=module, contract=contract))


def last_source(program: FloatProgram) -> torch.fx.Node:
    node = program.calls(torch.ops.aten.linear.default)[-1]
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    return source


def fold_of(program: FloatProgram) -> Fold | None:
    return find_fold(program, last_source(program), tensor_uses(program))


def value_of(program: FloatProgram) -> Tensor:
    found: list[Tensor] = []
    source = last_source(program)

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n is source:
                found.append(value.clone())
            return value

    random = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    with torch.no_grad():
        Watch(program.module).run(torch.tensor(random))
    return found[0]


@pytest.mark.parametrize("name", FOLDED)
def test_a_fold_divides_each_channel_of_the_activation(name: str) -> None:
    program = program_of(FOLDED[name])
    fold = fold_of(program)
    assert fold is not None
    scale = torch.linspace(0.5, 3, fold.channels)
    expected = value_of(program) / scale[fold.origin]
    fold.divide(program, scale)
    torch.testing.assert_close(value_of(program), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_carry_scales_is_refused(name: str) -> None:
    assert fold_of(program_of(REFUSED[name])) is None


def test_heads_that_share_a_value_share_its_scales() -> None:
    fold = fold_of(program_of(FOLDED["heads that share a value"]))
    assert fold is not None
    assert fold.origin.tolist() == list(range(8)) * 3


def test_a_matrix_with_two_readers_is_no_product_to_edit() -> None:
    def twice(net: Net, x: Tensor) -> Tensor:
        value: Tensor = net.maker(F.gelu(net.maker(x)))
        return value

    program = program_of(twice)
    assert [str(item.weight.target) for item in products(program, tensor_uses(program))] == [
        "last.weight"
    ]
