from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.rotate.norms import find_norms
from edgeship.calibration.equalize.rotate.rms import write_first_pass, write_rms
from edgeship.calibration.equalize.rotate.two_pass import WORTH, best_pass
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model


def tokens(lengths: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, len(lengths), 64, generator=generator) * lengths[:, None]


def test_equal_tokens_need_no_first_pass() -> None:
    assert best_pass(tokens(torch.ones(40)), 1e-12) is None


def test_unequal_tokens_get_one_that_saves_errors() -> None:
    lengths = torch.ones(40)
    lengths[5] = 12.0
    values = tokens(lengths)
    found = best_pass(values, 1e-12)
    assert found is not None
    assert found.saved > 1 - WORTH
    assert 0 < found.constant < float(values.square().mean(-1).max())


def test_constant_stays_far_above_epsilon() -> None:
    lengths = torch.ones(40) * 1e-3
    lengths[5] = 12e-3
    assert best_pass(tokens(lengths), 1e-5) is None


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(64, eps=1e-5, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


def normed() -> FloatProgram:
    spec = TensorSpec(name="x", shape=(1, 40, 64), dtype="float32")
    contract = Contract(
        inputs=(spec,), outputs=(TensorSpec(name="y", shape=(1, 40, 64), dtype="float32"),)
    )
    return float_program(Model(module=Normed().eval(), contract=contract))


def test_second_pass_makes_up_for_the_constant_of_the_first() -> None:
    program = normed()
    (norm,) = find_norms(program)
    write_first_pass(program, write_rms(program, norm), constant=2.0)
    made = program.canonical()
    for scale in (0.0, 1e-3, 1.0, 30.0):
        values = tokens(torch.linspace(0.1, 4.0, 40)) * scale
        found = torch.from_numpy(made.run({"x": values.numpy()})["y"])
        # epsilon / constant is 5e-6
        torch.testing.assert_close(found, Normed()(values), rtol=1e-5, atol=1e-6)
