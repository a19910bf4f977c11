from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeship.calibration.equalize.cross_layer.noise import Reader, noise
from edgeship.calibration.equalize.cross_layer.observation import Channels
from edgeship.calibration.equalize.cross_layer.scales import solve_scales, spread

CHANNELS = 12


def value_of(x: Tensor) -> Channels:
    rows = x.transpose(0, 1).reshape(x.shape[1], -1)
    return Channels(low=rows.amin(1), high=rows.amax(1), power=rows.square().mean(1))


def rounded(x: Tensor, *, is_symmetric: bool) -> Tensor:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = max(-low, high) / 127 if is_symmetric else (high - low) / 255
    return (x / step).round() * step


def rounded_weight(weight: Tensor) -> Tensor:
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    return (weight / step).round() * step


def make(groups: int, imbalance: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(groups)
    x = torch.randn(4, CHANNELS, 16, 16, generator=generator, dtype=torch.float64)
    weight = torch.randn(
        2 * CHANNELS, CHANNELS // groups, 3, 3, generator=generator, dtype=torch.float64
    )
    factor = 2 ** (imbalance * (2 * torch.rand(CHANNELS, generator=generator).double() - 1))
    x = x * factor.reshape(-1, 1, 1)
    by_row = factor.reshape(groups, 1, -1).expand(groups, 2 * CHANNELS // groups, -1)
    return x, weight / by_row.reshape(2 * CHANNELS, CHANNELS // groups, 1, 1)


def reader_of(weight: Tensor, x: Tensor, groups: int) -> Reader:
    rows = weight.reshape(groups, -1, weight.shape[1], 9)
    return Reader.of(rows, value_of(x).power)


@pytest.mark.parametrize("groups", [1, 3, CHANNELS])
@pytest.mark.parametrize("imbalance", [0, 3])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_the_model_agrees_with_rounding(groups: int, imbalance: int, is_symmetric: bool) -> None:
    x, weight = make(groups, imbalance)
    expected = F.conv2d(x, weight, groups=groups)
    inexact = rounded(x, is_symmetric=is_symmetric)
    found = F.conv2d(inexact, rounded_weight(weight), groups=groups)
    ratios = (found - expected).square().mean((0, 2, 3)) / expected.square().mean((0, 2, 3))
    modelled = noise(
        torch.ones(CHANNELS, dtype=torch.float64),
        [reader_of(weight, x, groups)],
        [value_of(x)],
        is_symmetric=is_symmetric,
    )
    # weights are few: their errors have their own mean square, within a decibel
    assert 10 * math.log10(modelled / float(ratios.mean())) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("groups", [1, 3, CHANNELS])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_scales_undo_an_injected_imbalance(groups: int, is_symmetric: bool) -> None:
    even, uneven = make(groups, 0), make(groups, 4)
    level = [
        noise(
            torch.ones(CHANNELS, dtype=torch.float64),
            [reader_of(weight, x, groups)],
            [value_of(x)],
            is_symmetric=is_symmetric,
        )
        for x, weight in (even, uneven)
    ]
    x, weight = uneven
    found = solve_scales([reader_of(weight, x, groups)], [value_of(x)], is_symmetric=is_symmetric)
    assert level[1] > 4 * level[0]
    assert level[1] / 10 ** (found.gain_db / 10) < 1.05 * level[0]
    assert found.before > 2
    assert found.after < 1.5


def test_even_channels_gain_nothing_worth_telling() -> None:
    x, weight = make(1, 0)
    found = solve_scales([reader_of(weight, x, 1)], [value_of(x)], is_symmetric=False)
    assert found.gain_db < 1


def test_dead_channels_keep_their_scale() -> None:
    x, weight = make(1, 4)
    x[:, 2] = 0
    weight[:, 5] = 0
    found = solve_scales([reader_of(weight, x, 1)], [value_of(x)], is_symmetric=False)
    assert found.scales[2] == 1
    assert found.scales[5] == 1
    assert bool(found.scales.isfinite().all())
    assert found.gain_db > 6


def test_a_space_that_is_dead_throughout_is_left_alone() -> None:
    x, weight = make(1, 4)
    x[:] = 0
    found = solve_scales([reader_of(weight, x, 1)], [value_of(x)], is_symmetric=True)
    assert torch.equal(found.scales, torch.ones_like(found.scales))
    assert (found.gain_db, found.before, found.after) == (0, 1, 1)


def test_spread_is_of_live_channels() -> None:
    assert spread(torch.tensor([0.0, 0.0, 1.0, 2.0, 8.0])) == 4
