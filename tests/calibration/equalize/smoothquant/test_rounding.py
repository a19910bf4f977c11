from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeship.calibration.equalize.smoothquant.rounding import rounded_activation, rounded_weight


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_activations_are_as_torch_quantizes_them(*, is_symmetric: bool) -> None:
    values = torch.linspace(-3, 7, 1001)
    low, high = -2.0, 5.0
    step = high / 127 if is_symmetric else (high - low) / 255
    zero = 0 if is_symmetric else round(-low / step)
    limits = (-128, 127) if is_symmetric else (0, 255)
    expected = torch.fake_quantize_per_tensor_affine(values, step, zero, *limits)
    found = rounded_activation(values, low, high, is_symmetric=is_symmetric)
    worst = int((found - expected).abs().argmax())
    # a value half way between two steps may go to either
    assert float((found - expected).abs().max()) <= step * 1.001, (worst, values[worst])
    assert float((found - expected).abs().mean()) < step / 100


def test_weights_are_as_torch_quantizes_them() -> None:
    weight = torch.tensor(np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32))
    weight[3] = 0
    step = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    zero = torch.zeros(6, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, step, zero, 0, -128, 127)
    found = rounded_weight(weight)
    off = (found - expected).abs() / step[:, None]
    assert float((off > 0.01).float().mean()) < 0.01
    assert found[3].abs().sum() == 0


def test_a_range_of_nothing_gives_zeros() -> None:
    for is_symmetric in (True, False):
        found = rounded_activation(torch.zeros(4), 0.0, 0.0, is_symmetric=is_symmetric)
        assert found.tolist() == [0.0] * 4
