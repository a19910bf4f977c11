from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeship.calibration.equalize.smoothquant.scales import shared_reach, smoothing_scales

REACH = st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=8)


def test_the_papers_formula() -> None:
    found = smoothing_scales(torch.tensor([2.0, 8.0, 32.0]), torch.tensor([0.5, 0.25, 2.0]), 0.75)
    expected = [8**0.75 / 0.5**0.25, 8**0.75 / 0.25**0.25, 32**0.75 / 2**0.25]  # 8: the median
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, expected, strict=True))


def test_dead_channels_have_scale_1_and_no_part_in_the_median() -> None:
    found = smoothing_scales(
        torch.tensor([0.0, 0.0, 0.0, 4.0, 4.0]), torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]), 0.5
    )
    assert found.tolist() == [1.0, 1.0, 1.0, 1.0, 2.0]


@given(REACH, REACH, st.floats(0.1, 0.95))
def test_scales_are_positive_and_finite(
    activation: list[float], weight: list[float], alpha: float
) -> None:
    count = min(len(activation), len(weight))
    found = smoothing_scales(torch.tensor(activation[:count]), torch.tensor(weight[:count]), alpha)
    assert bool((found >= 0.9e-5).all())
    assert bool((found <= 1.1e5).all())


def test_channels_of_one_origin_share_the_largest_reach() -> None:
    origin = torch.tensor([0, 0, 2, 2, 2])
    found = shared_reach(torch.tensor([1.0, 5.0, 2.0, 3.0, 0.5]), origin, 4)
    assert found.tolist() == [5.0, 0.0, 3.0, 0.0]
