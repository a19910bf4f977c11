from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.cross_layer.scaling import scale_channels
from edgeship.calibration.equalize.cross_layer.spaces import Space, find_spaces
from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model

SHAPE = (2, 3, 12, 12)
WIDTH = 8
SLOPES = torch.linspace(0.1, 0.8, WIDTH)
SHIFTS = torch.linspace(-1, 1, WIDTH).reshape(WIDTH, 1, 1)
SHIFT = torch.full((1, 1, 1), 0.7)
MAP = torch.linspace(-1, 1, 12)
GATE = torch.linspace(-1, 1, 12).reshape(1, 1, 1, 12)
Between = Callable[[Tensor], Tensor]
PASSED: dict[str, Between] = {
    "nothing": lambda x: x,
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "prelu": lambda x: F.prelu(x, SLOPES),
    "clamp at 0": lambda x: x.clamp(min=0),
    "clamp from above": lambda x: x.clamp(max=0),
    "negative": lambda x: -x,
    "dropout": lambda x: F.dropout(x, training=False),
    "number": lambda x: x * -0.5 / 3,
    "max pooling": lambda x: F.max_pool2d(x, 3, 2, 1),
    "average pooling": lambda x: F.avg_pool2d(x, 2),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, 3),
    "zero padding": lambda x: F.pad(x, (1, 2, 0, 1)),
    "reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "gate": lambda x: x * torch.sigmoid(GATE),
    "constant": lambda x: x + SHIFTS,
    "constant of another width": lambda x: SHIFT - x,
    "constant map": lambda x: x + MAP,
    "twice": lambda x: F.relu(x) + x,
    "there and back": lambda x: x.permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3),
    "mean kept": lambda x: x.mean((2, 3), keepdim=True),
    "mean and back": lambda x: x.mean((-2, -1))[..., None].unsqueeze(3),
}
ENDED: dict[str, Between] = {
    "relu6": F.relu6,
    "relu6 in place": lambda x: F.relu6(x, inplace=True),
    "clamp from both sides": lambda x: x.clamp(0, 6),
    "clamp elsewhere": lambda x: x.clamp(min=-1),
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "number added": lambda x: x + 1,
    "ones padded": lambda x: F.pad(x, (1, 1, 1, 1), value=1.0),
    "square": lambda x: x * x,
    "channels exchanged": lambda x: x.flip(1),
    "channels joined": lambda x: x + x.mean(1, keepdim=True),
    "channels padded": lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, :WIDTH],
    "shuffle": lambda x: x.reshape(2, 2, WIDTH // 2, 12, 12).transpose(1, 2).flatten(1, 2),
}


class Pair(nn.Module):
    def __init__(self, between: Between) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, 4, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.second(self.between(self.first(x)))
        return value


class Pairs(nn.Module):
    def __init__(self, forms: dict[str, Between]) -> None:
        super().__init__()
        self.pairs = nn.ModuleDict({name: Pair(between) for name, between in forms.items()})

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([pair(x).flatten() for pair in self.pairs.values()])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.one = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.deep = nn.Conv2d(6, 12, 3, groups=6)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12 * 25, 7)
        self.last = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu_(self.one(x))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        x = F.relu(self.two(y * torch.sigmoid(gate)) + x)
        x += F.relu(self.two.weight.sum())
        x = F.leaky_relu(self.up(x))
        x = F.max_pool2d(torch.relu(self.deep(x)), 2).flatten(1)
        value: Tensor = self.last(F.relu(self.head(x)))
        return value


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner, self.head = (
            nn.Conv2d(3, 6, 1),
            nn.Conv2d(6, 6, 1),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.outer(x))
        value: Tensor = self.head(F.relu(self.inner(F.relu(self.inner(x)))))
        return value


def program_of(module: nn.Module) -> FloatProgram:
    torch.manual_seed(0)
    module = module.eval().requires_grad_(requires_grad=False)
    output = module(torch.zeros(SHAPE)).shape
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=tuple(output), dtype="float32"),),
    )
    return float_program(Model(module=module, contract=contract))


def layers_of(space: Space) -> tuple[list[str], list[str]]:
    return (
        [str(layer.weight.target).removesuffix(".weight") for layer in space.writers],
        [str(layer.weight.target).removesuffix(".weight") for layer in space.readers],
    )


def assert_scales_change_nothing(module: nn.Module, program: FloatProgram) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(SHAPE, generator=generator)
    expected = module(x.clone()).numpy()
    for space in find_spaces(program):
        scales = 2 ** (8 * torch.rand(space.size, generator=generator, dtype=torch.float64) - 4)
        scale_channels(program, space, scales)
    program.module.recompile()
    found = program.run({"x": x.numpy()})["y"]
    # each weight is rounded to 24 bits again, and sums are of up to 300 products
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert not np.array_equal(found, expected)  # something was scaled, by no power of two


def test_channels_are_followed_through_what_scales_with_them() -> None:
    module = Pairs(PASSED)
    program = program_of(module)
    found = [layers_of(space) for space in find_spaces(program)]
    assert found == [([f"pairs.{name}.first"], [f"pairs.{name}.second"]) for name in PASSED]
    assert_scales_change_nothing(module, program)


def test_channels_end_at_what_does_not_scale_with_them() -> None:
    assert [layers_of(space) for space in find_spaces(program_of(Pairs(ENDED)))] == []


def test_residual_sums_and_gates_and_groups_share_their_scales() -> None:
    module = Residual()
    program = program_of(module)
    names = [layers_of(space) for space in find_spaces(program)]
    assert (["one"], ["squeeze", "two"]) not in names  # the weight of `two` has another reader
    assert (["squeeze"], ["excite"]) in names
    assert (["up"], ["deep"]) in names
    assert (["deep"], ["head"]) in names
    assert (["head"], ["last"]) in names
    assert_scales_change_nothing(module, program)


def test_a_residual_chain_is_one_space() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.head = (
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.Conv2d(8, 2, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            x = F.relu(self.a(x) + x)
            x = x - self.b(x)
            value: Tensor = self.head(x)
            return value

    module = Chain()
    program = program_of(module)
    (space,) = find_spaces(program)
    assert layers_of(space) == (["stem", "a", "b"], ["a", "b", "head"])
    assert_scales_change_nothing(module, program)


def test_a_weight_of_two_layers_is_not_scaled() -> None:
    assert find_spaces(program_of(Tied())) == []


def test_a_bias_of_two_layers_is_scaled_for_each_of_them() -> None:
    class SharedBias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
            self.b.bias = self.a.bias

        def forward(self, x: Tensor) -> Tensor:
            value: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
            return value

    module = SharedBias()
    program = program_of(module)
    assert len(find_spaces(program)) == 2
    assert_scales_change_nothing(module, program)


def test_what_an_output_shows_is_not_scaled() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = F.relu(self.a(x))
            return self.b(y), y

    torch.manual_seed(0)
    specs = [TensorSpec(name="b", shape=(2, 2, 12, 12), dtype="float32")]
    specs.append(TensorSpec(name="y", shape=(2, 6, 12, 12), dtype="float32"))
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),), outputs=tuple(specs)
    )
    program = float_program(Model(module=Shown().eval(), contract=contract))
    assert find_spaces(program) == []
