from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.attempt import attempt
from edgeship.calibration.equalize.hard_swish import SIXTH, HardSwish, hard_swish_sites
from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.rewrite import NothingToRewrite, Use, load_rewrite
from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Recipe, Source
from edgeship.exporters.tflite.exporter import TfliteExporter
from edgeship.project import RangePolicy
from edgeship.runtimes.adapter import encode_inputs
from edgeship.runtimes.delegation import examine_delegation
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.source.model import Model
from edgeship.source.program import load_program
from edgeship.targets import Runtime, load_target
from edgeship.vocabulary import Format, RewriteName

ATEN = torch.ops.aten
SHAPE = (1, 3, 8, 8)
USE = Use(format=Format.TFLITE, target=load_target("raspberry-pi-4"), is_symmetric=False)
Activation = Callable[[Tensor], Tensor]
FORMS: dict[str, Activation] = {
    "operator": F.hardswish,
    "in place": lambda x: F.hardswish(x, inplace=True),
    "product over 6": lambda x: x * F.relu6(x + 3) / 6,
    "times a sixth": lambda x: x * (F.relu6(3.0 + x) * (1 / 6)),
    "gate first": lambda x: F.relu6(x + 3) / 6 * x,
    "x over 6": lambda x: (x / 6) * F.relu6(x + 3),
    "clamp": lambda x: x * torch.clamp(x + 3, min=0, max=6) / 6,
    "hardtanh in place": lambda x: x * F.hardtanh(x + 3, 0.0, 6.0, inplace=True) / 6,
    "hard-sigmoid": lambda x: F.hardsigmoid(x) * x,
}
OTHERS: dict[str, Activation] = {
    "another sixth": lambda x: x * (F.relu6(x + 3) * 0.1667),
    "another shift": lambda x: x * F.relu6(x + 2.5) / 6,
    "another limit": lambda x: x * torch.clamp(x + 3, 0, 5) / 6,
    "another source": lambda x: x.flip(1) * F.relu6(x + 3) / 6,
    "a shift with a factor": lambda x: x * F.relu6(torch.add(x, 3, alpha=2)) / 6,
    "no sixth": lambda x: x * F.relu6(x + 3),
    "over a tensor": lambda x: x * F.relu6(x + 3) / (x * x + 6),
    "gate of another": lambda x: x * F.hardsigmoid(x.mean((2, 3), keepdim=True)),
}


class Swish(nn.Module):
    def __init__(self, form: Activation) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x)


class Net(nn.Module):
    """Layers whose channels the activations see in all three pieces."""

    def __init__(self, *forms: Activation) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.swishes = nn.ModuleList([Swish(form) for form in forms])
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in forms])
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = 3 * self.stem(x)
        for swish, layer in zip(self.swishes, self.layers, strict=True):
            x = x + 4 * layer(swish(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def model_of(module: nn.Module) -> Model:
    image = TensorSpec(name="image", shape=SHAPE, dtype="float32")
    logits = TensorSpec(name="logits", shape=(1, 10), dtype="float32")
    contract = Contract(inputs=(image,), outputs=(logits,))
    return Model(module=module.eval(), contract=contract)


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [{"image": generator.normal(size=SHAPE).astype(np.float32)} for _ in range(count)]


def rewritten(program: FloatProgram, use: Use = USE) -> tuple[FloatProgram, list[str]]:
    found = attempt(HardSwish(), program, samples(), use)
    return found.program, list(found.lines)


def test_every_form_is_found_and_keeps_its_function() -> None:
    module = Net(*FORMS.values())
    expected = [copy.deepcopy(module).eval()(torch.tensor(item["image"])) for item in samples()]

    made, (line, *_) = rewritten(float_program(model_of(module)))

    assert line.startswith(f"{len(FORMS)} hard-swishes written as")
    assert "swishes.0, swishes.1" in line
    for item, value in zip(samples(), expected, strict=True):
        error = np.abs(made.run(item)["logits"] - value.detach().numpy()).max()
        # one float32 step of each constant, and the rounding of sums that run alike
        assert error <= len(FORMS) * 1e-6 * float(value.detach().abs().max())
    names = {str(node.target) for node in made.graph.nodes}
    assert not {name for name in names if "hard" in name or "clamp" in name or "div" in name}
    products = [node for node in made.calls(ATEN.mul.Tensor) if node.args[1] == SIXTH]
    assert len(products) == len(FORMS)
    assert not list(hard_swish_sites(made))


@pytest.mark.parametrize("form", OTHERS.values(), ids=OTHERS)
def test_what_is_no_hard_swish_is_left_alone(form: Activation) -> None:
    program = float_program(model_of(Net(form)))
    with pytest.raises(NothingToRewrite, match="no hard-swish"):
        HardSwish().apply(program, samples(), USE)


def test_a_gate_that_is_used_elsewhere_stays() -> None:
    def doubled(x: Tensor) -> Tensor:
        gate = F.relu6(x + 3)
        return x * gate / 6 + gate

    program = float_program(model_of(Net(doubled)))
    made, _ = rewritten(program)
    assert len(made.calls(ATEN.relu6.default)) == 2
    (item,) = samples(1)
    assert np.allclose(made.run(item)["logits"], program.run(item)["logits"], rtol=1e-5)


def test_modules_that_stay_in_float_keep_theirs() -> None:
    program = float_program(model_of(Net(*[F.hardswish] * 3)))
    some = replace(USE, kept_modules=("swishes.[01]",))
    made, lines = rewritten(program, some)
    assert len(made.calls(ATEN.hardswish.default)) == 2
    assert lines[0].startswith("1 hard-swish written as")
    assert lines[1] == "2 left whole, in modules that stay in float"

    everything = replace(USE, kept_modules=("swishes",))
    with pytest.raises(NothingToRewrite, match="every hard-swish"):
        HardSwish().apply(program.copy(), samples(), everything)


def test_a_program_from_a_file_is_as_good(tmp_path: Path) -> None:
    program = float_program(model_of(Net(F.hardswish, FORMS["clamp"])))
    program.save(tmp_path / "net.pt2")
    module = load_program(tmp_path / "net.pt2", program.model.contract.inputs)
    made, (line, *_) = rewritten(float_program(replace(program.model, module=module)))
    assert line.startswith("2 hard-swishes")
    (item,) = samples(1)
    assert np.allclose(made.run(item)["logits"], program.run(item)["logits"], rtol=1e-5)


def test_it_is_for_files_that_litert_runs_first() -> None:
    assert load_rewrite(RewriteName.HARD_SWISH).name is RewriteName.HARD_SWISH
    assert not list(HardSwish().problems(USE))
    (problem,) = HardSwish().problems(replace(USE, format=Format.ONNX))
    assert "LiteRT" in problem

    facts = USE.target.formats[Format.TFLITE]
    old = replace(facts, runtimes=facts.runtimes[::-1])
    assert old.runtimes[0].name is Runtime.TFLITE_RUNTIME
    target = replace(USE.target, formats={**USE.target.formats, Format.TFLITE: old})
    (problem,) = HardSwish().problems(replace(USE, target=target))
    assert "faster whole" in problem


def test_a_target_with_tflite_runtime_beside_litert_is_told() -> None:
    program = float_program(model_of(Net(F.hardswish)))
    _, lines = rewritten(program.copy())
    assert any(line.startswith("tflite_runtime, which") for line in lines)
    _, (only,) = rewritten(program, replace(USE, target=load_target("android-arm64")))
    assert "tflite_runtime" not in only


def integer_file(model: Model, directory: Path) -> Path:
    exporter, inputs = TfliteExporter(), model.contract.inputs
    (directory / "lower").mkdir(parents=True)
    source = Source(load=lambda: model, read_probes=lambda: samples(2), checkpoint=directory)
    lowered = exporter.lower(source, directory / "lower")
    feed = ((str(n), encode_inputs(x, inputs, lowered.contract)) for n, x in enumerate(samples()))
    with LiteRtRuntime().observe(lowered.file, lowered.observed) as session:
        ranges = solve_ranges(observe(feed, session.run, lowered.layout), RangePolicy())
    exporter.emit(lowered, ranges, Recipe(precision="int8"), USE.target, directory)
    return directory / "model.tflite"


@pytest.mark.slow
def test_the_integer_file_is_one_delegate(tmp_path: Path) -> None:
    forms = [FORMS[name] for name in ("operator", "product over 6", "times a sixth", "clamp")]
    program = float_program(model_of(Net(*forms)))
    before = examine_delegation(integer_file(program.model, tmp_path / "before"))
    assert before.outside == {"HARD_SWISH": len(forms)}
    assert before.partitions > 1

    made, _ = rewritten(program)
    after = examine_delegation(integer_file(made.model, tmp_path / "after"))
    assert (after.partitions, after.outside) == (1, {})
