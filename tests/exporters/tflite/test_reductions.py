from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))


@pytest.mark.parametrize("kind", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (1,), (3,), (0, 2, 3), (1, 2, 3)])
@pytest.mark.parametrize("keeps", [False, True])
def test_reductions_read_the_source(kind: str, axes: tuple[int, ...], keeps: bool) -> None:
    file = moves.Moves(1, 3, 4, 5)
    # (3,) leaves channels before rows, which in the source are behind them
    result = file.reduce(kind, file.first(), axes, keeps=keeps)
    count, left = moves.removed(file, result)
    assert count == (0 if axes == (3,) else 1)
    assert left[0] == ("TRANSPOSE" if axes == (3,) else kind)
    assert keeps or axes == (3,) or left == [kind]


def test_a_mean_over_flattened_pixels_reads_the_source() -> None:
    file = moves.Moves(1, 3, 4, 5)
    result = file.reduce("MEAN", file.reshape(file.first(), (1, 5, 12)), (-1,), keeps=False)
    assert moves.removed(file, result) == (1, ["MEAN"])


def test_a_mean_over_channel_groups_splits_the_channels() -> None:
    file = moves.Moves(1, 3, 4, 6)
    result = file.reduce("MEAN", file.reshape(file.first(), (1, 2, 36)), (2,), keeps=False)
    assert moves.removed(file, result) == (1, ["RESHAPE", "MEAN"])


def test_the_class_of_each_pixel_reads_the_source() -> None:
    file = moves.Moves(1, 3, 4, 5)
    inputs = [file.first(), file.value([1], np.int32)]
    result = file.give("ARG_MAX", inputs, (1, 3, 4), "ArgMaxOptions", outputType=2)
    assert moves.removed(file, result) == (1, ["ARG_MAX"])
