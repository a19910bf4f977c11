from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quant_shape_to_byte_shape
from hypothesis import given
from hypothesis import strategies as st

from edgeship.errors import ExportFailed
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.layout import ALIGNMENT, lay_out


def plan(name: str, *shape: int) -> TensorPlan:
    return TensorPlan(name=name, shape=shape, source=name)


def test_order_is_what_is_in_no_block_then_blocks_by_number_then_names_by_byte() -> None:
    names = ["blk.10.a", "output_norm", "blk.2.b", "blk.2.Z", "output", "blk.x.a", "blk.0.ffn_up"]
    layout = lay_out([plan(name, 32) for name in names], dict.fromkeys(names, Kind.F32))
    assert [placement.plan.name for placement in layout.placements] == [
        "blk.x.a",
        "output",
        "output_norm",
        "blk.0.ffn_up",
        "blk.2.Z",
        "blk.2.b",
        "blk.10.a",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(Kind), st.integers(1, 5), st.integers(1, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_tensors_follow_each_other_padded_and_have_the_bytes_of_their_kind(
    rows: list[tuple[Kind, int, int]],
) -> None:
    plans = [plan(f"t{number}", count, wide * 256) for number, (_, count, wide) in enumerate(rows)]
    layout = lay_out(plans, {f"t{number}": kind for number, (kind, _, _) in enumerate(rows)})
    at = 0
    for placement in layout.placements:
        assert placement.offset == at
        # gguf-py has sizes of its own
        kind = GGMLQuantizationType[placement.kind]
        size = int(np.prod(quant_shape_to_byte_shape(placement.plan.shape, kind)))
        assert placement.size_bytes == size
        at += size + -size % ALIGNMENT
    assert layout.data_bytes == at


def test_rows_that_are_no_whole_blocks_are_refused_all_at_once() -> None:
    plans = [plan("a", 2, 96), plan("b", 2, 48), plan("c", 2, 48), plan("d", 0, 256)]
    kinds = {"a": Kind.Q4_K, "b": Kind.Q4_0, "c": Kind.F16, "d": Kind.Q4_K}
    with pytest.raises(ExportFailed) as caught:
        lay_out(plans, kinds)
    assert [problem.where for problem in caught.value.problems] == ["a", "b", "d"]
    assert "expected a multiple of 256 columns, found 96" in str(caught.value)
