"""Hadamard: orthogonal matrices that spread one large element over all of a vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

_FOUR: Final = 4
"""Orders above 2 are multiples of it (Hadamard 1893)."""


def orthogonal(width: int, seed: int) -> Tensor:
    """An orthogonal matrix float64[width, width] whose elements are as equal as is known here.

    A Hadamard matrix over sqrt(width), each column with a sign of its own by `seed`. A width that
    has none is the Kronecker product of the largest one that divides it and a cosine transform
    (DCT-II, orthonormal), whose elements are up to sqrt(2) above those of a Hadamard matrix.
    """
    order = hadamard_order(width)
    square = hadamard(order) / math.sqrt(order)
    if order < width:
        square = torch.kron(square, _cosines(width // order))
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (width,), generator=generator, dtype=torch.float64) * 2 - 1
    return square * signs


def hadamard_order(width: int) -> int:
    """The largest divisor of `width` for which `hadamard` has a matrix."""
    return max(n for n in range(1, width + 1) if width % n == 0 and _base(n) is not None)


def hadamard(order: int) -> Tensor:
    """A matrix of -1 and 1, float64[order, order], whose rows are orthogonal.

    Sylvester's doubling of a Paley matrix of either kind over a prime field (Paley, On Orthogonal
    Matrices, 1933).

    Raises:
        ValueError: None is known here.
    """
    base = _base(order)
    if base is None:
        raise ValueError(order)
    matrix = _paley(base)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _base(order: int) -> int | None:
    """The order of the matrix to double: `order` over a power of two."""
    while order > 1:
        if order == 2 or _is_first_kind(order) or _is_second_kind(order):
            return order
        if order % 2:
            return None
        order //= 2
    return order


def _is_first_kind(order: int) -> bool:
    return order % _FOUR == 0 and _is_prime(order - 1)


def _is_second_kind(order: int) -> bool:
    field = order // 2 - 1
    return order % 2 == 0 and field % _FOUR == 1 and _is_prime(field)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def _paley(order: int) -> Tensor:
    if order <= 2:
        return torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)[:order, :order]
    if _is_first_kind(order):
        return _bordered(order - 1, sign=-1.0) + torch.eye(order, dtype=torch.float64)
    symmetric = _bordered(order // 2 - 1, sign=1.0)
    zeros = torch.eye(len(symmetric), dtype=torch.float64)
    ones = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    others = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    return torch.kron(symmetric, ones) + torch.kron(zeros, others)


def _bordered(field: int, *, sign: float) -> Tensor:
    """Jacobsthal's matrix of a prime field with a border of ones: Paley's conference matrix."""
    squares = {i * i % field for i in range(1, field)}
    row = [0.0, *(1.0 if i in squares else -1.0 for i in range(1, field))]
    matrix = torch.zeros(field + 1, field + 1, dtype=torch.float64)
    matrix[0, 1:], matrix[1:, 0] = 1.0, sign
    for i in range(field):
        matrix[i + 1, 1:] = torch.tensor([row[(i - j) % field] for j in range(field)])
    return matrix


def _cosines(size: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (places + 0.5) * places[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
