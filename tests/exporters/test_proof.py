from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ExportFailed
from edgeship.exporters.proof import prove
from edgeship.exporters.protocol import Source
from edgeship.source.model import Model

SPEC = TensorSpec(name="x", shape=(1, 4))
PROBES = [{"x": np.full((1, 4), value, np.float32)} for value in (1.0, 1000.0)]


@dataclass(frozen=True)
class Off:
    """Doubles its input, but for the last element, which is off by `error`."""

    error: float

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        doubled = 2 * inputs["x"]
        doubled[0, -1] += self.error
        return {"y": doubled}


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def source() -> Source:
    contract = Contract(inputs=(SPEC,), outputs=(TensorSpec(name="y", shape=(1, 4)),))
    return Source(
        load=lambda: Model(module=Double(), contract=contract), read_probes=lambda: PROBES
    )


def test_a_file_that_computes_the_same_is_proven() -> None:
    prove(Off(1e-4), source(), where="graph")  # half of what 1e-4 of the magnitude 2 allows


@pytest.mark.parametrize("error", [4e-4, np.nan, np.inf])
def test_another_value_is_refused_with_its_output_and_sample(error: float) -> None:
    with pytest.raises(ExportFailed, match="computes something else") as raised:
        prove(Off(error), source(), where="graph")
    (problem,) = raised.value.problems
    assert problem.where == "graph: output 'y', sample 0"
