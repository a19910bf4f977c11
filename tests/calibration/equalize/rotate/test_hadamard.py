from __future__ import annotations

import pytest
import torch

from edgeship.calibration.equalize.rotate.hadamard import hadamard, hadamard_order, orthogonal


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 28, 36, 48, 64, 80, 96, 300, 312, 384, 768])
def test_rows_of_ones_are_orthogonal(order: int) -> None:
    matrix = hadamard(order)
    assert matrix.abs().eq(1).all()
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))


@pytest.mark.parametrize(("width", "order"), [(100, 20), (90, 2), (7, 1), (92, 4), (384, 384)])
def test_width_without_a_matrix_is_turned_by_a_divisor_and_cosines(width: int, order: int) -> None:
    assert hadamard_order(width) == order
    matrix = orthogonal(width, seed=3)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64))
    assert float(matrix.abs().max()) <= (2 / width) ** 0.5 + 1e-12


def test_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="92"):
        hadamard(92)


def test_seeds_give_signs_and_the_same_ones_again() -> None:
    assert torch.equal(orthogonal(48, 1), orthogonal(48, 1))
    assert not torch.equal(orthogonal(48, 1), orthogonal(48, 2))
    assert torch.equal(orthogonal(48, 1).abs(), orthogonal(48, 2).abs())


def test_one_large_element_is_spread_over_all() -> None:
    vector = torch.zeros(384, dtype=torch.float64)
    vector[178] = 1.0
    turned = orthogonal(384, 0) @ vector
    torch.testing.assert_close(turned.abs(), torch.full_like(turned, 384**-0.5))
