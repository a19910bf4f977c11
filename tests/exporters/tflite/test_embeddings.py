from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tflite.casts import drop_copies
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.embeddings import gather_embeddings
from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.versions import set_versions

ROWS: Final = 50
Tables = Any
Run = Callable[[Tables, dict[str, np.ndarray]], dict[str, np.ndarray]]
Make = Callable[..., Tables]


@pytest.fixture
def table() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    values[7] *= 4
    return values


def look_up(handmade: Make, table: np.ndarray, *, is_reshaped: bool = True) -> Tables:
    """The rows of 3 ids, in the shape (1, 3, 8) or as they are, times 2."""
    found = "e/reshape" if is_reshaped else "e/embedding_lookup"
    sources = ("e/embedding_lookup", "e/shape")
    reshape = [("RESHAPE", sources, "e/reshape", {"newShape": [1, 3, 8]})]
    return handmade(
        {
            "ids": ("INT32", (3,)),
            "e/weight": table,
            "e/shape": np.array([1, 3, 8], np.int32),
            "e/two": np.full((), 2, np.float32),
            "e/embedding_lookup": ("FLOAT32", (3, 8)),
            "e/reshape": ("FLOAT32", (1, 3, 8)),
            "rows": ("FLOAT32", (1, 3, 8) if is_reshaped else (3, 8)),
        },
        [
            ("EMBEDDING_LOOKUP", ("ids", "e/weight"), "e/embedding_lookup", {}),
            *(reshape if is_reshaped else []),
            ("MUL", (found, "e/two"), "rows", {}),
        ],
        ["ids"],
        ["rows"],
    )


def narrow_ranges(high: float) -> Ranges:
    seen = Range(low=-1.0, high=1.0)
    names = ("e/embedding_lookup", "e/reshape")
    known = {**dict.fromkeys(names, seen), "rows": Range(low=-high, high=high)}
    return Ranges(by_name=known, dead=(), masks=())


def test_gather_gives_the_rows_of_the_look_up(
    handmade: Make, litert: Run, table: np.ndarray
) -> None:
    tables = look_up(handmade, table)
    gather_embeddings(tables)
    set_versions(tables)
    ids = np.array([3, 49, 7])
    np.testing.assert_array_equal(litert(tables, {"ids": ids})["rows"][0], 2 * table[ids])


@pytest.mark.parametrize("is_reshaped", [True, False])
def test_rows_that_no_sample_used_are_not_cut_in_int8(
    handmade: Make, litert: Run, table: np.ndarray, *, is_reshaped: bool
) -> None:
    tables = look_up(handmade, table, is_reshaped=is_reshaped)
    peak = float(np.abs(table).max())
    gather_embeddings(tables)
    quantized = read_model(integer_model(write_model(tables), narrow_ranges(2 * peak)))
    drop_copies(quantized)
    census = take_census(quantized)
    assert census.is_integer
    assert not census.requantizations
    # half a step of the table's scale, doubled; half one of the output's
    bound = (float(table.max() - table.min()) + 2 * peak) / 255
    for first in range(0, ROWS - 2, 3):
        ids = np.arange(first, first + 3)
        difference = np.abs(litert(quantized, {"ids": ids})["rows"].reshape(3, 8) - 2 * table[ids])
        assert difference.max() <= bound * 1.01, (first, difference.max())
