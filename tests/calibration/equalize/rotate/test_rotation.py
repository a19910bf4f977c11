from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeship.calibration.equalize.attempt import attempt
from edgeship.calibration.equalize.program import FloatProgram
from edgeship.calibration.equalize.rewrite import NothingToRewrite, load_rewrite
from edgeship.calibration.equalize.rotate.observed import observe
from edgeship.calibration.equalize.rotate.rotation import Rotation
from edgeship.source.difference import relative_difference
from edgeship.source.program import load_program
from edgeship.vocabulary import RewriteName

encoders = SimpleNamespace(**run_path(str(Path(__file__).with_name("encoders.py"))))
aten = torch.ops.aten
slow = pytest.mark.slow
WIDTHS = (
    (80, 5),
    pytest.param(96, 3, marks=slow),
    pytest.param(48, 4, marks=slow),
    pytest.param(50, 5, marks=slow),
)
NORMS = (
    nn.LayerNorm,
    pytest.param(nn.RMSNorm, marks=slow),
    pytest.param(encoders.WrittenRms, marks=slow),
)


def rotated(module: nn.Module) -> tuple[FloatProgram, tuple[str, ...]]:
    made = attempt(Rotation(), encoders.program_of(module), encoders.texts(), encoders.use_of())
    return made.program, made.lines


def assert_same(module: nn.Module, program: FloatProgram) -> None:
    for inputs in encoders.texts(5, seed=9):
        expected = module(*(torch.from_numpy(value) for value in inputs.values()))
        difference = relative_difference(expected.numpy(), program.run(inputs)["mean"])
        assert difference < 1e-5, difference


@pytest.mark.parametrize(("width", "heads"), WIDTHS)
def test_norms_after_sums_become_rms_and_outputs_stay(width: int, heads: int) -> None:
    module = encoders.randomized(encoders.Encoder(width, heads))
    program, lines = rotated(module)
    assert_same(module, program)
    assert not program.calls(aten.layer_norm.default)
    assert any("1 attentions" in line for line in lines)
    assert any("no Hadamard" in line for line in lines) == (width == 50)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_before_sums_need_one_layer_at_the_end(norm: type[nn.Module]) -> None:
    module = encoders.randomized(encoders.Encoder(is_post=False, norm=norm))
    before = len(encoders.program_of(module).calls(aten.linear.default))
    program, _ = rotated(module)
    assert_same(module, program)
    assert len(program.calls(aten.linear.default)) == before + 1
    assert not program.calls(aten.layer_norm.default, aten.rms_norm.default)


@slow
def test_a_program_file_is_rotated_as_its_module_is(tmp_path: Path) -> None:
    module = encoders.randomized(encoders.Encoder())
    encoders.program_of(module).save(tmp_path / "encoder.pt2")
    loaded = load_program(tmp_path / "encoder.pt2", encoders.model_of(module).contract.inputs)
    program, _ = rotated(loaded)
    assert_same(module, program)


@slow
def test_the_same_model_is_rotated_to_the_same_weights() -> None:
    module = encoders.randomized(encoders.Encoder())
    one, other = (rotated(module)[0].module.state_dict() for _ in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@slow
def test_an_outlier_channel_is_spread_over_the_stream() -> None:
    module = encoders.randomized(encoders.Encoder())
    module.layers[0].feed[2].bias[5] += 60.0
    program, _ = rotated(module)

    before = encoders.program_of(module)
    (norm,) = before.calls(aten.layer_norm.default)[-1:]
    (product,) = program.calls(aten.rsqrt.default)[-1].users
    peaks = []
    for item, node in ((before, norm), (program, product)):
        values = observe(item, encoders.texts(), [node])[node]
        peaks.append(float(values.abs().max() / values.square().mean().sqrt()))
    assert peaks[0] > 5 > 4 > peaks[1]


class Shared(nn.Module):
    """One layer, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(encoders.WORDS, 48)
        self.first = nn.LayerNorm(48)
        self.layer = encoders.Layer(48, 4, nn.LayerNorm, is_post=True)

    def forward(self, ids: Tensor, kept: Tensor) -> Tensor:
        mask = (1 - kept.float())[:, None, None, :] * -1e4
        x = self.layer(self.layer(self.first(self.words(ids)), mask), mask)
        mean: Tensor = x.mean(1)
        return mean


class Unended(encoders.Encoder):  # type: ignore[misc,name-defined]  # of a file that is run
    """Gives what its norms read, without a last norm."""

    def __init__(self) -> None:
        super().__init__(is_post=False)
        self.last = nn.Identity()


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(encoders.WORDS, 48)
        self.norm, self.layer = nn.LayerNorm(48), nn.Linear(48, 8)

    def forward(self, ids: Tensor, kept: Tensor) -> Tensor:
        mean: Tensor = (self.layer(self.norm(self.words(ids))) * kept[..., None]).mean(1)
        return mean


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Plain, "no attention"),
        (Unended, "layer layers.0.norm_1: what it normalizes is read by .* as well"),
        (Shared, "layer layer.attention.* shares its weight"),
    ],
)
def test_other_structures_are_refused_with_the_reason(kind: type[nn.Module], reason: str) -> None:
    program = encoders.program_of(encoders.randomized(kind()))
    with pytest.raises(NothingToRewrite, match=reason):
        Rotation().apply(program.copy(), encoders.texts(), encoders.use_of())


@slow
def test_a_table_with_another_reader_is_left_and_turned_behind() -> None:
    class Tied(encoders.Encoder):  # type: ignore[misc,name-defined]  # as above
        def forward(self, ids: Tensor, kept: Tensor) -> Tensor:
            scores: Tensor = super().forward(ids, kept) @ self.words.weight.T
            return scores

    module = encoders.randomized(Tied())
    program, _ = rotated(module)
    assert_same(module, program)
    (table,) = (program.tensor(node.args[0]) for node in program.calls(aten.embedding.default))
    assert torch.equal(table, module.words.weight)


def test_masked_means_are_turned_back_once_behind_them() -> None:
    module = encoders.randomized(encoders.Encoder())
    program, _ = rotated(module)
    last = program.calls(aten.linear.default)[-1]
    assert last.meta["val"].shape == (1, 48)
    assert next(iter(last.users)).op == "output"
    inputs = encoders.texts()[0] | {"kept": np.eye(1, encoders.TOKENS, dtype=np.int64)}
    expected = module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    assert relative_difference(expected, program.run(inputs)["mean"]) < 1e-5


def test_the_registry_gives_the_pass() -> None:
    rewrite = load_rewrite(RewriteName.ROTATE)
    assert rewrite.is_exact
    assert list(rewrite.problems(encoders.use_of())) == []


class Offset(nn.Module):
    """Whose gain is 1 + weight, which is no parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x) * (1 + self.weight)
        return y


@slow
def test_norms_that_no_linear_layer_reads_are_refused() -> None:
    module = encoders.randomized(encoders.Encoder(is_post=False, norm=Offset, layers=3))
    with pytest.raises(NothingToRewrite, match="is read by what is no linear layer"):
        Rotation().apply(encoders.program_of(module), encoders.texts(), encoders.use_of())
