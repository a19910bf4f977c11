from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.transposes import remove_transposes

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))


@pytest.mark.parametrize("between", [(), ("RELU",), ("HARD_SWISH", "TANH")])
def test_a_layer_after_flattening_gets_its_columns_permuted(between: tuple[str, ...]) -> None:
    file = moves.Moves(1, 3, 4, 5)
    flat = file.reshape(file.first(), (1, 60))
    for kind in between:
        flat = file.give(kind, [flat], (1, 60))
    result = file.layer(flat, file.weight(7, 60))
    assert moves.removed(file, result) == (1, [*between, "RESHAPE", "FULLY_CONNECTED"])
    content = file.write(result)
    tables = read_model(content)
    remove_transposes(tables)
    assert len(write_model(tables)) <= len(content)  # the weight as it was is gone


def test_layers_share_a_permuted_weight_and_others_keep_theirs() -> None:
    file = moves.Moves(1, 3, 4, 5)
    shared = file.weight(7, 60)
    flat = file.reshape(file.first(), (1, 60))
    other = file.reshape(file.source, (1, 60))
    results = [file.layer(item, shared) for item in (flat, flat, other)]
    count, left = moves.removed(file, *results)
    assert (count, left.count("FULLY_CONNECTED")) == (1, 3)


def test_a_flattened_output_stays_as_it_is() -> None:
    file = moves.Moves(1, 3, 4, 5)
    flat = file.reshape(file.first(), (1, 60))
    assert moves.removed(file, flat, file.layer(flat, file.weight(7, 60)))[0] == 0


def test_a_shuffle_before_pooling_and_a_layer_goes_into_the_weight() -> None:
    file = moves.Moves(1, 3, 4, 6)
    pooled = file.reduce("MEAN", file.shuffled(2), (1, 2), keeps=False)
    count, left = moves.removed(file, file.layer(pooled, file.weight(7, 6)))
    assert (count, left) == (3, ["MEAN", "RESHAPE", "FULLY_CONNECTED"])
