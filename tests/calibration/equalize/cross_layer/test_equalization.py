from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgeship.calibration.equalize.attempt import attempt
from edgeship.calibration.equalize.batch_norm import fold_batch_norms
from edgeship.calibration.equalize.cross_layer.equalization import CrossLayer
from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.rewrite import NothingToRewrite, Use, load_rewrite
from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Exporter, Recipe, Source
from edgeship.exporters.registry import load_exporter
from edgeship.project import RangePolicy
from edgeship.runtimes.adapter import FloatSession, encode_inputs
from edgeship.runtimes.protocol import load_observer, load_runtime
from edgeship.source.model import Model
from edgeship.targets import load_target
from edgeship.vocabulary import Format, RewriteName, Role

SHAPE = (1, 3, 16, 16)
TARGET = load_target("raspberry-pi-4")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nets as small as these wait for a second one on a busy machine
    yield
    torch.set_num_threads(threads)


def use_of(
    format_: Format = Format.ONNX, *, is_symmetric: bool = False, kept: tuple[str, ...] = ()
) -> Use:
    return Use(format=format_, target=TARGET, is_symmetric=is_symmetric, kept_modules=kept)


class Separable(nn.Module):
    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)]
        for width, wider in ((16, 24), (24, 32)):
            layers += [activation(), nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)]
            layers += [nn.BatchNorm2d(width), activation()]
            layers += [nn.Conv2d(width, wider, 1, bias=False), nn.BatchNorm2d(wider)]
        self.body = nn.Sequential(*layers, activation())
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.head(self.body(x).mean((2, 3)))
        return value


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.a, self.b = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.wide, self.side = nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(16, 24, 1, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        x = F.relu_(self.wide(x).add_(self.side(x)))
        value: Tensor = self.head(F.avg_pool2d(x, 4).flatten(1))
        return value


def inject(module: nn.Module, bits: float, seed: int = 0) -> None:
    random = np.random.default_rng(seed)

    def factors(count: int) -> Tensor:
        return torch.from_numpy(2 ** random.uniform(-bits, bits, count)).float()

    pairs: list[tuple[list[nn.Module], Tensor, list[nn.Module]]]
    if isinstance(module, Residual):
        pairs = [
            ([module.stem, module.b], factors(16), [module.a, module.wide, module.side]),
            ([module.a], factors(16), [module.b]),
            ([module.wide, module.side], factors(24), [module.head]),
        ]
    else:
        assert isinstance(module, Separable)
        layers: list[nn.Module] = [*module.body, module.head]
        readers = [item for item in layers if isinstance(item, nn.Conv2d | nn.Linear)][1:]
        norms = [item for item in layers if isinstance(item, nn.BatchNorm2d)]
        pairs = [
            ([norm], factors(norm.num_features), [reader])
            for norm, reader in zip(norms, readers, strict=True)
        ]
    for writers, scales, scaled in pairs:
        for writer in writers:
            for parameter in writer.parameters():
                parameter.data *= scales.reshape(-1, *[1] * (parameter.dim() - 1))
        for reader in scaled:
            (weight, *_) = reader.parameters()
            shape = (-1, 1) if getattr(reader, "groups", 1) > 1 else (1, -1)
            weight.data /= scales.reshape(*shape, *[1] * (weight.dim() - 2))


def images(count: int, seed: int) -> list[Mapping[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(count)]


def batch_of(count: int, seed: int) -> Tensor:
    return torch.from_numpy(np.concatenate([item["x"] for item in images(count, seed)]))


def model_of(module: nn.Module) -> Model:
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, 10), dtype="float32"),),
    )
    return Model(module=module.eval().requires_grad_(requires_grad=False), contract=contract)


def made(kind: type[Separable | Residual]) -> Separable | Residual:
    torch.manual_seed(0)
    module = kind()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.5
    module.train()
    with torch.no_grad():
        for seed in range(8):
            module(batch_of(16, seed))
    return module


KINDS = (Separable, Residual)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_an_injected_imbalance_is_taken_out_again(
    kind: type[Separable | Residual], is_symmetric: bool
) -> None:
    even = made(kind)
    uneven = copy.deepcopy(even)
    inject(uneven, 3)
    program = float_program(model_of(uneven))
    found = attempt(CrossLayer(), program, images(8, 1), use_of(is_symmetric=is_symmetric))
    assert found.difference < 2e-5
    levels = [
        simulated_db(item, is_symmetric=is_symmetric)
        for item in (float_program(model_of(even)), program, found.program)
    ]
    assert levels[1] < levels[0] - 6
    assert levels[2] > levels[0] - 1
    (line,) = found.lines
    assert "scaled" in line


@pytest.mark.parametrize("kind", KINDS)
def test_an_even_net_is_left_with_the_reason(kind: type[Separable | Residual]) -> None:
    program = float_program(model_of(made(kind)))
    with pytest.raises(NothingToRewrite, match=r"even: the widest is 2\^[01]\.\d times"):
        attempt(CrossLayer(), program, images(8, 1), use_of())


def test_clamps_from_both_sides_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    program = float_program(model_of(Separable(nn.ReLU6)))
    with pytest.raises(NothingToRewrite, match="no layers follow each other"):
        attempt(CrossLayer(), program, images(2, 1), use_of())


def test_layers_in_float_are_scaled_only_for_those_in_integers() -> None:
    module = made(Residual)
    inject(module, 3)
    program = float_program(model_of(module))
    with pytest.raises(NothingToRewrite, match="stay in float"):
        attempt(CrossLayer(), program, images(2, 1), use_of(kept=("*",)))
    found = attempt(CrossLayer(), program, images(8, 1), use_of(kept=("head", "b")))
    assert found.difference < 2e-5
    changed = changed_parameters(program, found.program)
    assert changed == {
        *("stem.weight", "stem.bias", "a.weight", "b.weight", "b.bias"),
        *("wide.weight", "side.weight"),
    }


def test_it_is_found_by_its_name() -> None:
    assert isinstance(load_rewrite(RewriteName.CROSS_LAYER), CrossLayer)


@pytest.mark.slow
@pytest.mark.parametrize("format_", [Format.ONNX, Format.TFLITE])
def test_the_integer_file_is_as_good_as_that_of_the_even_net(
    format_: Format, tmp_path: Path
) -> None:
    even = made(Separable)
    uneven = copy.deepcopy(even)
    inject(uneven, 3)
    program = float_program(model_of(uneven))
    found = attempt(CrossLayer(), program, images(16, 1), use_of(format_))
    levels = []
    for index, model in enumerate((model_of(even), model_of(uneven), found.program.model)):
        directory = tmp_path / str(index)
        directory.mkdir()
        levels.append(exported_db(model, load_exporter(format_), directory))
    assert levels[1] < levels[0] - 6
    assert levels[2] > levels[0] - 1


def exported_db(model: Model, exporter: Exporter, directory: Path) -> float:
    inputs, samples = model.contract.inputs, images(32, 1)
    source = Source(load=lambda: model, read_probes=lambda: images(2, 3), checkpoint=directory)
    (directory / "lower").mkdir()
    lowered = exporter.lower(source, directory / "lower")
    feed = ((str(n), encode_inputs(x, inputs, lowered.contract)) for n, x in enumerate(samples))
    with load_observer(lowered.runtime).observe(lowered.file, lowered.observed) as observer:
        ranges = solve_ranges(observe(feed, observer.run, lowered.layout), RangePolicy())
    payload = exporter.emit(lowered, ranges, Recipe(precision="int8"), TARGET, directory)
    (name,) = (name for name, role in payload.files.items() if role is Role.MODEL)
    opened = load_runtime(payload.requires.any_of[0].runtime).open(directory / name, threads=1)
    session = FloatSession(opened, inputs, payload.contract)
    pairs = [(model.run(x)["y"], session.run(x)["y"]) for x in images(16, 2)]
    return decibels(*(np.concatenate(values) for values in zip(*pairs, strict=True)))


class Rounding(fx.Interpreter):
    """Weights by output, and in a second run activations by tensor, as int8 has them."""

    def __init__(self, module: fx.GraphModule, *, is_symmetric: bool) -> None:
        super().__init__(module)
        self._is_symmetric = is_symmetric
        self._ends: dict[str, tuple[float, float]] = {}
        self.is_rounding = False

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        is_new = n.op == "call_function" and not any("relu" in user.name for user in n.users)
        if n.op != "placeholder" and not is_new:
            return value
        assert isinstance(value, Tensor)
        low, high = self._ends.get(n.name, (0.0, 0.0))
        if not self.is_rounding:
            self._ends[n.name] = min(low, float(value.min())), max(high, float(value.max()))
            return value
        if self._is_symmetric:
            return torch.fake_quantize_per_tensor_affine(value, max(-low, high) / 127, 0, -127, 127)
        step = (high - low) / 255
        return torch.fake_quantize_per_tensor_affine(value, step, round(-low / step), 0, 255)


def simulated_db(program: FloatProgram, *, is_symmetric: bool) -> float:
    folded = program.copy()
    fold_batch_norms(folded)
    folded = folded.canonical()
    rounding = Rounding(folded.copy().module, is_symmetric=is_symmetric)
    with torch.no_grad():
        rounding.run(batch_of(32, 1))
        for name, weight in rounding.module.named_parameters():
            if name.endswith("weight"):
                peaks = weight.abs().amax(tuple(range(1, weight.dim())))
                zeros = torch.zeros(len(peaks), dtype=torch.int32)
                rounded = torch.fake_quantize_per_channel_affine(
                    weight, peaks / 127, zeros, 0, -127, 127
                )
                weight.copy_(rounded)
        rounding.is_rounding = True
        found = rounding.run(batch_of(16, 2)).numpy()
        expected = fx.Interpreter(program.module).run(batch_of(16, 2)).numpy()
    return decibels(expected, found)


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    wanted = expected.astype(np.float64)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def changed_parameters(before: FloatProgram, after: FloatProgram) -> set[str]:
    values = dict(before.module.named_parameters())
    return {
        name
        for name, value in after.module.named_parameters()
        if not torch.equal(value, values[name])
    }
