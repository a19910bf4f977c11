from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.cross_layer.observation import observe_channels
from edgeship.calibration.equalize.program import float_program
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model

ATEN = torch.ops.aten


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        value: Tensor = self.head(F.relu_(y).flatten(1))
        return value


def test_channels_are_seen_before_the_next_node_works_on_them_in_place() -> None:
    torch.manual_seed(0)
    module = InPlace().eval()
    contract = Contract(
        inputs=(TensorSpec(name="x", shape=(1, 3, 3, 3), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, 2), dtype="float32"),),
    )
    program = float_program(Model(module=module, contract=contract))
    (conv,), (flat,) = program.calls(ATEN.conv2d.default), program.calls(ATEN.flatten.using_ints)
    samples = [
        {"x": np.random.default_rng(seed).normal(size=(1, 3, 3, 3)).astype(np.float32)}
        for seed in range(3)
    ]
    seen = observe_channels(program, samples, {conv: (1, 1), flat: (1, 9)})
    with torch.no_grad():
        rows = [module.conv(torch.from_numpy(sample["x"]))[0].reshape(4, 9) for sample in samples]
    expected = torch.cat(rows, 1).double()
    assert float(expected.min()) < 0
    torch.testing.assert_close(seen[conv].low, expected.amin(1))
    torch.testing.assert_close(seen[conv].high, expected.amax(1))
    torch.testing.assert_close(seen[conv].power, expected.square().mean(1))
    torch.testing.assert_close(seen[conv].peaks, expected.abs().amax(1))
    torch.testing.assert_close(seen[flat].low, expected.clamp(min=0).amin(1))
    torch.testing.assert_close(seen[flat].power, expected.clamp(min=0).square().mean(1))
