from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))


def test_transposes_that_cancel_are_gone() -> None:
    file = moves.Moves(1, 3, 4, 5)
    back = file.turn(file.first(), moves.TO_LAST)
    assert moves.removed(file, file.give("RELU", [back], (1, 3, 4, 5))) == (2, ["RELU"])
    file = moves.Moves(1, 3, 4, 5)
    back = file.turn(file.first(), moves.TO_LAST)
    assert moves.removed(file, back) == (2, ["RESHAPE"])  # an output has its own tensor


def test_axes_of_size_1_move_by_a_reshape() -> None:
    file = moves.Moves(1, 1, 1, 5)
    turned = file.first()
    result = file.give("RELU", [turned], (1, 5, 1, 1))
    assert moves.removed(file, result) == (1, ["RESHAPE", "RELU"])


def test_a_channel_shuffle_is_one_transpose() -> None:
    file = moves.Moves(1, 3, 4, 6)
    assert moves.removed(file, file.shuffled(2)) == (2, ["RESHAPE", "TRANSPOSE", "RESHAPE"])


def test_a_pixel_shuffle_stays() -> None:
    file = moves.Moves(1, 4, 5, 12)
    split = file.reshape(file.first(), (3, 2, 2, 20))
    columns = file.reshape(file.turn(split, (0, 1, 3, 2)), (3, 2, 4, 10))
    rows = file.reshape(file.turn(columns, (0, 2, 1, 3)), (1, 3, 8, 10))
    result = file.give("RELU", [file.turn(rows, moves.TO_LAST)], (1, 8, 10, 3))
    assert moves.removed(file, result)[0] == 0
