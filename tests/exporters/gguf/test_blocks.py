from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeship.exporters.gguf.blocks import row_blocks
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.layout import lay_out


@given(
    heads=st.one_of(st.none(), st.integers(1, 40)),
    height=st.integers(1, 80),
    columns=st.sampled_from([1, 64, 576, 4096, 300_000]),
)
def test_blocks_cover_all_rows_once_in_order_and_cut_no_head(
    heads: int | None, height: int, columns: int
) -> None:
    rows = (heads or 17) * 2 * height
    plan = TensorPlan(name="a", shape=(rows, columns), source="a", permuted_heads=heads)
    blocks = list(row_blocks(lay_out([plan], {"a": Kind.F16}).placements))
    unit = 1 if heads is None else 2 * height
    assert blocks[0].first == 0
    assert all(one.first + one.count == two.first for one, two in pairwise(blocks))
    assert blocks[-1].first + blocks[-1].count == rows
    assert all(block.first % unit == block.count % unit == 0 for block in blocks)
    assert all(block.weights <= max(256 * 1024, unit * columns) for block in blocks)
    assert blocks[-1].offset == blocks[-1].first * columns * 2


@pytest.mark.parametrize("shape", [(50_000,), (300_000,), (2, 3, 40_000)])
def test_vectors_and_stacked_matrices_are_cut_by_rows_too(shape: tuple[int, ...]) -> None:
    plan = TensorPlan(name="a", shape=shape, source="a")
    blocks = list(row_blocks(lay_out([plan], {"a": Kind.F32}).placements))
    assert sum(block.weights for block in blocks) == np.prod(shape)
