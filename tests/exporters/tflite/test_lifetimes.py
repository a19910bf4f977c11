"""Tensors that are read again after a RESHAPE of them, in every runtime that is there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.protocol import Recipe, Source
from edgeship.exporters.tflite.exporter import TfliteExporter
from edgeship.exporters.tflite.flatbuffer import operator_name, operators, read_model
from edgeship.project import RangePolicy
from edgeship.runtimes.adapter import FloatSession
from edgeship.runtimes.protocol import load_observer, load_runtime
from edgeship.source.model import Model
from edgeship.targets import load_target

SHAPE = (1, 128, 64)
pytestmark = pytest.mark.slow


class Norm(nn.Module):
    """A sum over its root mean square: the square reads a RESHAPE of it, the product itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.one(x) + self.other(x)
        normal: Tensor = z * torch.rsqrt((z * z).mean(-1, keepdim=True) + 1e-6)
        return normal


def samples() -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [{"x": generator.standard_normal(SHAPE).astype(np.float32)} for _ in range(8)]


@pytest.fixture(scope="module")
def integer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path, Contract]:
    torch.manual_seed(0)
    spec = TensorSpec(name="x", shape=SHAPE)
    contract = Contract(inputs=(spec,), outputs=(TensorSpec(name="y", shape=SHAPE),))
    model = Model(module=Norm().eval(), contract=contract)
    directory, exporter = tmp_path_factory.mktemp("norm"), TfliteExporter()
    source = Source(load=lambda: model, read_probes=lambda: samples()[:2])
    lowered = exporter.lower(source, directory)
    with load_observer(lowered.runtime).observe(lowered.file, lowered.observed) as session:
        feed = ((str(k), sample) for k, sample in enumerate(samples()))
        statistics = observe(feed, session.run, lowered.layout)
    (directory / "int8").mkdir()
    payload = exporter.emit(
        lowered,
        solve_ranges(statistics, RangePolicy()),
        Recipe(precision="int8"),
        load_target("raspberry-pi-4"),
        directory / "int8",
    )
    return model, directory / "int8/model.tflite", payload.contract


def test_nothing_is_read_after_a_reshape_of_it(integer: tuple[Model, Path, Contract]) -> None:
    tables = read_model(integer[1].read_bytes())
    present = [item for _, item in operators(tables)]
    last = {int(index): place for place, item in enumerate(present) for index in item.inputs}
    reshapes = [item for item in present if operator_name(tables, item) == "RESHAPE"]
    assert reshapes
    for item in reshapes:
        assert last[int(item.inputs[0])] <= last.get(int(item.outputs[0]), len(present))


@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_every_runtime_computes_it(integer: tuple[Model, Path, Contract], runtime: str) -> None:
    model, file, contract = integer
    if load_runtime(runtime).version() is None:
        pytest.skip(f"NOT TESTED in {runtime}: it is not on this machine")
    session = FloatSession(load_runtime(runtime).open(file), model.contract.inputs, contract)
    for sample in samples():
        expected, found = model.run(sample)["y"].ravel(), session.run(sample)["y"].ravel()
        cosine = expected @ found / np.linalg.norm(expected) / np.linalg.norm(found)
        assert cosine > 0.995
