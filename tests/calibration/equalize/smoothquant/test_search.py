from __future__ import annotations

import torch
from torch import Tensor

from edgeship.calibration.equalize.smoothquant.observation import Seen
from edgeship.calibration.equalize.smoothquant.search import best_choice


def seen(rows: Tensor, samples: int = 2) -> Seen:
    parts = rows.chunk(samples)
    return Seen(
        low=torch.stack([part.amin(0) for part in parts]),
        high=torch.stack([part.amax(0) for part in parts]),
        rows=rows,
        counts=torch.ones(len(rows)),
    )


def same(values: Tensor) -> Tensor:
    return values


def test_an_outlier_channel_is_evened_out() -> None:
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    rows[:, 3] *= 100
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    found = best_choice(seen(rows), [weight], same, same, is_symmetric=True)
    assert found.error < 0.1 * found.error_before
    assert int(found.scale.argmax()) == 3


def test_the_error_counts_rows_by_what_they_stand_for() -> None:
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    plain = seen(rows)
    twice = Seen(low=plain.low, high=plain.high, rows=rows.repeat(2, 1), counts=torch.ones(128))
    counted = Seen(low=plain.low, high=plain.high, rows=rows, counts=torch.full((64,), 2.0))
    errors = [
        best_choice(item, [weight], same, same, is_symmetric=False).error
        for item in (twice, counted)
    ]
    assert abs(errors[0] - errors[1]) < 1e-6 * errors[0] + 1e-12


def test_scales_that_hold_for_half_of_the_samples_alone_are_seen_through() -> None:
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    rows[:32, 5] *= 200
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    both = best_choice(seen(rows), [weight], same, same, is_symmetric=True)
    swapped = best_choice(seen(rows.flip(0)), [weight], same, same, is_symmetric=True)
    assert both.error < 0.5 * swapped.error


def test_silence_has_no_error() -> None:
    found = best_choice(seen(torch.zeros(4, 3)), [torch.ones(2, 3)], same, same, is_symmetric=False)
    assert found.error == found.error_before == 0
    assert found.scale.tolist() == [1, 1, 1]
