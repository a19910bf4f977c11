from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.smoothquant.observation import ROWS, observe_nodes
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model

ATEN = torch.ops.aten
SHAPE = (2, 400, 6)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        doubled = x * 2
        return torch.relu_(doubled) + 1


def program() -> FloatProgram:
    spec = TensorSpec(name="x", shape=SHAPE, dtype="float32")
    contract = Contract(
        inputs=(spec,), outputs=(TensorSpec(name="y", shape=SHAPE, dtype="float32"),)
    )
    return float_program(Model(module=InPlace().eval(), contract=contract))


def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=SHAPE).astype(np.float32) for _ in range(3)]


def test_ranges_are_of_all_rows_and_before_what_changes_them_in_place() -> None:
    item, inputs = program(), arrays()
    (node,) = item.calls(ATEN.mul.Tensor)
    found = observe_nodes(item, [node], [{"x": array} for array in inputs])[node]
    for index, array in enumerate(inputs):
        rows = 2 * array.reshape(-1, 6)
        np.testing.assert_array_equal(found.low[index], rows.min(0))
        np.testing.assert_array_equal(found.high[index], rows.max(0))
        np.testing.assert_array_equal(found.reach[index], np.abs(rows).max(0))


def test_kept_rows_are_bounded_repeat_and_stand_for_all() -> None:
    item = program()
    inputs = [{"x": array} for array in arrays()]
    (node,) = item.calls(ATEN.mul.Tensor)
    found, again = (observe_nodes(item, [node], inputs)[node] for _ in range(2))
    assert torch.equal(found.rows, again.rows)
    assert len(found.rows) <= ROWS + len(inputs)
    assert abs(float(found.counts.sum()) - 3 * 800) < 0.01
    kept = {tuple(row.tolist()) for row in found.rows}
    assert kept <= {tuple((2 * row).tolist()) for array in arrays() for row in array.reshape(-1, 6)}


def test_the_loudest_row_of_each_sample_is_kept() -> None:
    item, inputs = program(), arrays()
    for index, array in enumerate(inputs):
        array[1, 7 * index, 2] = 1000 + index
    (node,) = item.calls(ATEN.mul.Tensor)
    found = observe_nodes(item, [node], [{"x": array} for array in inputs])[node]
    assert sorted(float(row.max()) for row in found.rows)[-3:] == [2000, 2002, 2004]


def test_what_is_not_finite_has_no_part() -> None:
    item, inputs = program(), arrays()
    inputs[0][0, 0] = [np.nan, np.inf, -np.inf, 0, 0, 0]
    (node,) = item.calls(ATEN.mul.Tensor)
    found = observe_nodes(item, [node], [{"x": array} for array in inputs])[node]
    assert bool(torch.isfinite(found.reach).all())
    assert bool(torch.isfinite(found.rows).all())
