from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.attempt import attempt
from edgeship.calibration.equalize.program import FloatProgram, float_program, module_name
from edgeship.calibration.equalize.rewrite import NothingToRewrite, Use, load_rewrite
from edgeship.calibration.equalize.smoothquant.smoothing import SmoothQuant
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model
from edgeship.targets import load_target
from edgeship.vocabulary import Format, RewriteName

ATEN = torch.ops.aten
WIDTH, ROWS, HEADS = 32, 24, 4
SHAPE = (1, ROWS, WIDTH)
TENSORRT = Use(format=Format.TENSORRT, target=load_target("jetson-orin-nano"), is_symmetric=True)
ONNX = Use(format=Format.ONNX, target=load_target("raspberry-pi-4"), is_symmetric=False)
TFLITE = Use(format=Format.TFLITE, target=load_target("raspberry-pi-4"), is_symmetric=False)


class Attention(nn.Module):
    def __init__(self, *, is_eager: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.is_eager = is_eager

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, ROWS, HEADS, WIDTH // HEADS)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.is_eager:
            weights = F.dropout((q @ k.transpose(-2, -1) * 0.3).softmax(-1), training=False)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=0.3)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(1, ROWS, WIDTH))
        return result


class Block(nn.Module):
    def __init__(self, *, is_pre: bool, is_eager: bool = True) -> None:
        super().__init__()
        self.attention = Attention(is_eager=is_eager)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.is_pre = is_pre

    def forward(self, x: Tensor) -> Tensor:
        if self.is_pre:
            x = x + self.attention(self.first(x))
            value: Tensor = x + self.down(F.gelu(self.up(self.second(x))))
        else:
            x = self.first(x + self.attention(x))
            value = self.second(x + self.down(F.gelu(self.up(x))))
        return value


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        value: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return value


class Handmade(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.first = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.second = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.bias = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x * (x * x).mean(-1, keepdim=True).rsqrt() * self.gain + self.shift
        x = torch.relu_(x @ self.first)
        return torch.addmm(self.bias, x[0], self.second)


MODULES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "norm before": (lambda: Block(is_pre=True), 3, 1),
    "norm after": (lambda: Block(is_pre=False), 1, 3),
    "fused attention": (lambda: Block(is_pre=True, is_eager=False), 3, 1),
    "gated, RMS norm": (Gated, 2, 0),
    "by hand": (Handmade, 2, 0),
}
"""And how many activations have scales folded, how many a multiplication."""


def program_of(module: nn.Module) -> FloatProgram:
    generator = torch.Generator().manual_seed(3)
    outliers = torch.ones(WIDTH)
    outliers[::9] = 40.0
    for name, tensor in module.named_parameters():
        if tensor.ndim == 1 and "bias" not in name and "shift" not in name:
            tensor.data = outliers * torch.rand(WIDTH, generator=generator).add(0.5)
        else:
            tensor.data.normal_(0, WIDTH**-0.5, generator=generator)
    for name, tensor in module.named_parameters():
        if name.startswith(("attention.value", "up")):
            tensor.data[::7] *= 30  # channels of a product that are not even
        elif name == "first":
            tensor.data[:, ::7] *= 30
    module = module.eval().requires_grad_(requires_grad=False)
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(
            TensorSpec(name="y", shape=tuple(module(torch.ones(SHAPE)).shape), dtype="float32"),
        ),
    )
    return float_program(Model(module=module, contract=contract))


def samples(count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    outliers = np.where(np.arange(WIDTH) % 9, 1, 40)
    return [{"x": (random.normal(size=SHAPE) * outliers).astype(np.float32)} for _ in range(count)]


def smoothings(program: FloatProgram) -> list[torch.fx.Node]:
    return [
        node
        for node in program.calls(ATEN.mul.Tensor)
        if any(str(source.target).endswith("smoothing") for source in node.all_input_nodes)
    ]


def quantized(program: FloatProgram, inputs: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Outputs with what linear layers read and their weights in symmetric int8."""
    ranges: dict[torch.fx.Node, float] = {}

    class Observed(torch.fx.Interpreter):
        is_integer = False

        def run_node(self, n: torch.fx.Node) -> object:
            if n.target is ATEN.linear.default and self.is_integer:
                x, weight, bias = (self.env[item] for item in n.all_input_nodes)
                step = ranges[n] / 127
                rows = weight.abs().amax(1, keepdim=True) / 127
                x = torch.clamp(torch.round(x / step), -128, 127) * step
                return F.linear(x, torch.round(weight / rows) * rows, bias)
            if n.target is ATEN.linear.default:
                ranges[n] = max(
                    ranges.get(n, 0.0), float(self.env[n.all_input_nodes[0]].abs().max())
                )
            return super().run_node(n)

    with torch.no_grad():
        observed = Observed(program.module)
        for item in inputs:
            observed.run(torch.tensor(item["x"]))
        observed.is_integer = True
        return [observed.run(torch.tensor(item["x"])).numpy() for item in inputs]


@pytest.mark.parametrize("name", MODULES)
def test_the_function_is_kept(name: str) -> None:
    make, folded, inserted = MODULES[name]
    program = program_of(make())
    found = attempt(SmoothQuant(), program, samples(), TENSORRT)
    assert found.difference <= 1e-5
    assert len(smoothings(found.program)) == inserted
    assert f"{folded} of them folded" in found.lines[0]
    for inputs in samples(2, seed=9):
        expected, value = program.run(inputs)["y"], found.program.run(inputs)["y"]
        # outliers of 40 x 30 make the softmax steep: float32 alone moves it by 2e-5
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_integers_hold_better() -> None:
    program = program_of(Block(is_pre=False))
    found = attempt(SmoothQuant(), program, samples(8), TENSORRT)
    held = samples(8, seed=5)
    expected = [program.run(inputs)["y"] for inputs in held]
    errors = [
        sum(np.square(one - other).sum() for one, other in zip(values, expected, strict=True))
        for values in (quantized(program, held), quantized(found.program, held))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_query_key_and_value_share_one_multiplication() -> None:
    found = attempt(SmoothQuant(), program_of(Block(is_pre=False)), samples(), TENSORRT)
    first = smoothings(found.program)[0]
    assert [module_name(user) for user in first.users] == [
        f"attention.{name}" for name in ("query", "key", "value")
    ]
    assert module_name(first) == "attention.query"


def test_a_kept_layer_reads_what_it_read() -> None:
    use = Use(
        format=Format.TENSORRT,
        target=TENSORRT.target,
        is_symmetric=True,
        kept_modules=("*.key", "down"),
    )
    program = program_of(Block(is_pre=False))
    found = attempt(SmoothQuant(), program, samples(), use).program
    weights = dict(found.module.named_parameters())
    for name, before in program.module.named_parameters():
        if "key" in name or "down" in name:
            assert torch.equal(weights[name], before)
    assert {module_name(node) for node in smoothings(found)} == {"attention.query", "up"}


def test_a_kept_layer_carries_folded_scales() -> None:
    use = Use(
        format=Format.TENSORRT, target=TENSORRT.target, is_symmetric=True, kept_modules=("*.key",)
    )
    program = program_of(Block(is_pre=True))
    found = attempt(SmoothQuant(), program, samples(), use)
    assert found.difference <= 1e-5
    weights = dict(found.program.module.named_parameters())
    assert not torch.equal(
        weights["attention.key.weight"], program.module.get_parameter("attention.key.weight")
    )


@pytest.mark.parametrize("use", [TFLITE, ONNX])
def test_where_activations_are_integers_already_scales_are_folded_or_left_out(use: Use) -> None:
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
    with pytest.raises(NothingToRewrite, match=f"an integer {use.format} file only in the weights"):
        SmoothQuant().apply(program_of(module), samples(), use)
    found = attempt(SmoothQuant(), program_of(Gated()), samples(), use)
    assert not smoothings(found.program)


def test_a_net_with_attention_keeps_floats_for_a_multiplication_in_onnx() -> None:
    for is_eager in (True, False):
        module = Block(is_pre=False, is_eager=is_eager)
        found = attempt(SmoothQuant(), program_of(module), samples(), ONNX)
        assert len(smoothings(found.program)) == 3


def test_even_channels_are_left_alone() -> None:
    module = nn.Linear(WIDTH, WIDTH)
    program = program_of(module)
    random = np.random.default_rng(1)
    even = [{"x": random.uniform(-1, 1, SHAPE).astype(np.float32)} for _ in range(4)]
    with pytest.raises(NothingToRewrite, match="even"):
        SmoothQuant().apply(program, even, TENSORRT)


def test_a_net_without_linear_layers_is_refused() -> None:
    with pytest.raises(NothingToRewrite, match="no linear layer"):
        SmoothQuant().apply(program_of(nn.GELU()), samples(), TENSORRT)


def test_tied_weights_stay() -> None:
    first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    second.weight = first.weight
    with pytest.raises(NothingToRewrite):
        SmoothQuant().apply(
            program_of(nn.Sequential(first, nn.ReLU(), second)), samples(), TENSORRT
        )


def test_what_is_made_does_not_depend_on_threads() -> None:
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        program = program_of(Block(is_pre=True))
        SmoothQuant().apply(program, samples(), TENSORRT)
        results.append(dict(program.module.named_parameters()))
    torch.set_num_threads(threads)
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_the_registry_finds_it() -> None:
    assert isinstance(load_rewrite(RewriteName.SMOOTHQUANT), SmoothQuant)
