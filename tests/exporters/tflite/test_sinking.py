from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import numpy as np

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))
Moves = Any


def normalized(file: Moves) -> str:
    """Instance norm of a channel-first view, with a weight per channel."""
    turned = file.first()
    mean = file.reduce("MEAN", turned, (0, 2, 3), keeps=True)
    centred = file.give("SUB", [turned, mean], file.shape(turned), "SubOptions")
    square = file.give("MUL", [centred, centred], file.shape(turned), "MulOptions")
    variance = file.reduce("MEAN", square, (0, 2, 3), keeps=False)
    root = file.give("RSQRT", [file.reshape(variance, (1, 5, 1, 1))], (1, 5, 1, 1))
    scaled = file.give("MUL", [centred, root], file.shape(turned), "MulOptions")
    scale = file.value(np.arange(1, 6).reshape(5, 1, 1))
    result: str = file.give("MUL", [scale, scaled], file.shape(turned), "MulOptions")
    return result


def test_a_norm_between_two_transposes_is_computed_channel_last() -> None:
    file = moves.Moves(1, 3, 4, 5)
    result = file.turn(normalized(file), moves.TO_LAST)
    assert moves.removed(file, file.give("RELU", [result], (1, 3, 4, 5)))[0] == 2


def test_a_norm_whose_channel_first_result_ships_stays() -> None:
    file = moves.Moves(1, 3, 4, 5)
    assert moves.removed(file, normalized(file))[0] == 0


def test_gates_of_two_branches_are_computed_channel_last() -> None:
    file = moves.Moves(1, 3, 4, 5)
    other = file.give("TANH", [file.source], (1, 3, 4, 5))
    gate = file.reshape(file.reduce("MEAN", file.source, (1, 2), keeps=False), (1, 5, 1, 1))
    branches = [
        file.give("MUL", [file.turn(item, moves.TO_FIRST), gate], (1, 5, 3, 4), "MulOptions")
        for item in (file.source, other)
    ]
    total = file.give("ADD", branches, (1, 5, 3, 4), "AddOptions")
    count, left = moves.removed(file, file.reduce("MEAN", total, (2, 3), keeps=False))
    assert (count, left.count("TRANSPOSE")) == (2, 0)
