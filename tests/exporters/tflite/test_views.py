from __future__ import annotations

import math
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.exporters.tflite.views import (
    Axes,
    places_of,
    reshaped_axes,
    turned_axes,
    whole_axes,
)

moves = SimpleNamespace(**run_path(str(Path(__file__).with_name("moves.py"))))


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[str, tuple[int, ...]]]]:
    """A shape, and permutations and shapes after one another."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    steps: list[tuple[str, tuple[int, ...]]] = []
    now = shape
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = tuple(draw(st.permutations(range(len(now)))))
            steps.append(("turn", order))
            now = tuple(now[axis] for axis in order)
        else:
            now = draw(moves.shapes_of(math.prod(now)))
            steps.append(("reshape", now))
    return shape, steps


@given(chains())
@settings(max_examples=200)
def test_views_are_what_numpy_makes(
    chain: tuple[tuple[int, ...], list[tuple[str, tuple[int, ...]]]],
) -> None:
    shape, steps = chain
    source = np.arange(math.prod(shape)).reshape(shape)
    axes: Axes | None = whole_axes(shape)
    expected = source
    for kind, values in steps:
        assert axes is not None
        if kind == "turn":
            axes, expected = tuple(axes[axis] for axis in values), expected.transpose(values)
        else:
            axes, expected = reshaped_axes(axes, values), expected.reshape(values)
            if axes is None:
                return
        assert [math.prod(size for size, _ in axis) for axis in axes] == list(expected.shape)
    assert axes is not None
    np.testing.assert_array_equal(places_of(axes), expected.ravel())
    found = turned_axes(axes, shape)
    if found is not None:
        np.testing.assert_array_equal(source.reshape(found[0]).transpose(found[1]), expected)


def test_a_view_across_runs_is_none() -> None:
    axes = whole_axes((4, 6))
    turned = (axes[1], axes[0])
    assert reshaped_axes(turned, (4, 6)) is None
    assert reshaped_axes(turned, (2, 3, 4)) == (((2, 3),), ((3, 1),), ((4, 6),))
