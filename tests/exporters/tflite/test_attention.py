"""Attention of a torch module, masked by -inf, all the way to an int8 file."""

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Recipe
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.conversion import convert
from edgeship.exporters.tflite.emission import Emission, emission
from edgeship.exporters.tflite.exporter import float_activations
from edgeship.exporters.tflite.flatbuffer import operator_name, operators, write_model
from edgeship.exporters.tflite.naming import with_names
from edgeship.project import RangePolicy
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.source.model import Model

TOKENS: Final = 16
WIDTH: Final = 32
HEADS: Final = 4
GROUPS: Final = 2
pytestmark = pytest.mark.slow


def attention(*, is_grouped: bool) -> Model:
    """Causal, with keys and values of fewer heads if they are in groups."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    size = WIDTH // HEADS
    shared = GROUPS if is_grouped else HEADS

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(WIDTH, WIDTH)
            self.key = nn.Linear(WIDTH, size * shared)
            self.value = nn.Linear(WIDTH, size * shared)
            self.first = nn.Linear(WIDTH, WIDTH)
            self.second = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = (
                layer(x).view(1, TOKENS, -1, size).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            found = functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=is_grouped
            )
            joined = found.transpose(1, 2).reshape(1, TOKENS, WIDTH)
            result: Tensor = self.second(functional.gelu(12 * self.first(joined)))
            return result

    torch.manual_seed(0)
    spec = TensorSpec(name="x", shape=(1, TOKENS, WIDTH))
    contract = Contract(inputs=(spec,), outputs=(TensorSpec(name="y", shape=spec.shape),))
    return Model(module=Attention().eval(), contract=contract)


def inputs(seed: int, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(1, TOKENS, WIDTH)).astype(np.float32) for _ in range(count)]


def integer(model: Model, directory: Path) -> Emission:
    tables = with_names(convert(model), model.contract)
    file = directory / "float.tflite"
    file.write_bytes(write_model(tables))
    named = ((str(index), {"x": values}) for index, values in enumerate(inputs(0, 64)))
    with LiteRtRuntime().observe(file, float_activations(tables)) as session:
        ranges = solve_ranges(observe(named, session.run), RangePolicy())
    assert ranges.masks  # what was observed held the mask
    return emission(file.read_bytes(), ranges, Recipe(precision="int8"), ())


@pytest.mark.parametrize("is_grouped", [False, True])
def test_masked_attention_is_integer_with_right_operands_of_zero_point_0(
    tmp_path: Path, *, is_grouped: bool
) -> None:
    model = attention(is_grouped=is_grouped)
    made = integer(model, tmp_path)
    assert take_census(made.tables).is_integer
    assert any("made symmetric" in note for note in made.notes)
    assert any("cut at -3.5" in note for note in made.notes)
    products = [
        graph.tensors[operator.inputs[1]].quantization.zeroPoint[0]
        for graph, operator in operators(made.tables)
        if operator_name(made.tables, operator) == "BATCH_MATMUL"
    ]
    assert products == [0, 0]

    file = tmp_path / "model.tflite"
    file.write_bytes(write_model(made.tables))
    session = LiteRtRuntime().open(file)
    (graph,) = made.tables.subgraphs
    ends = [graph.tensors[index].quantization for index in (*graph.inputs, *graph.outputs)]
    (scale, zero), (out_scale, out_zero) = ((end.scale[0], end.zeroPoint[0]) for end in ends)
    signal = error = 0.0
    for values in inputs(1, 16):
        stored = np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)
        found = (session.run({"x": stored})["y"].astype(np.float32) - out_zero) * out_scale
        expected = model.run({"x": values})["y"]
        signal += float(np.square(expected).sum())
        error += float(np.square(expected - found).sum())
    # 29.7 and 28.8 (measured); with -10,000 in the ranges of the scores, 3 are left
    assert 10 * np.log10(signal / error) > 25, 10 * np.log10(signal / error)
