from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import torch

from edgeship.calibration.equalize.rotate.leading import leading_tokens
from edgeship.calibration.equalize.rotate.rotation import Rotation
from edgeship.source.difference import relative_difference
from edgeship.vocabulary import Format

encoders = SimpleNamespace(**run_path(str(Path(__file__).with_name("encoders.py"))))
aten = torch.ops.aten


def values_with(position: int, length: float) -> torch.Tensor:
    values = torch.randn(3, 1, 9, 32, generator=torch.Generator().manual_seed(0))
    values[:, :, position] *= length
    return values


def test_first_token_that_stands_out_in_each_sample_is_found() -> None:
    found = leading_tokens(values_with(0, 10.0))
    assert found is not None
    assert found.count == 1
    assert 5 < found.ratio < 12


def test_two_first_tokens_count_as_two() -> None:
    values = values_with(0, 10.0)
    values[:, :, 1] *= 9.0
    found = leading_tokens(values)
    assert found is not None
    assert found.count == 2


def test_tokens_elsewhere_or_in_some_samples_are_none() -> None:
    assert leading_tokens(values_with(0, 1.0)) is None
    assert leading_tokens(values_with(4, 10.0)) is None
    values = values_with(0, 10.0)
    values[1, :, 0] /= 10.0
    assert leading_tokens(values) is None


def test_long_first_token_goes_through_its_feed_forward_apart() -> None:
    program = encoders.program_of(encoders.long_first())
    edited = program.copy()
    lines = Rotation().apply(edited, encoders.texts(), encoders.use_of())
    assert any("the first token computed apart before 1 norms" in line for line in lines)
    made = edited.canonical()
    shared = [len(node.users) for node in made.graph.nodes if node.op == "get_attr"]
    assert shared.count(2) >= 4  # weight and bias of both layers
    for inputs in encoders.texts(5, seed=7):
        expected, found = program.run(inputs)["mean"], made.run(inputs)["mean"]
        assert relative_difference(expected, found) < 1e-5


def test_formats_whose_norms_stay_in_float_keep_tokens_together() -> None:
    edited = encoders.program_of(encoders.long_first())
    Rotation().apply(edited, encoders.texts(), encoders.use_of(Format.ONNX))
    assert not edited.calls(aten.cat.default)
