from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from edgeship.errors import ExportFailed
from edgeship.evaluate.operator_times import time_operators
from edgeship.evaluate.speed import Clock
from edgeship.exporters.tflite.edits import add_shape
from edgeship.exporters.tflite.flatbuffer import read_model, write_model

Write = Callable[[Path, str, Sequence[tuple[str, Sequence[int]]]], Path]
CHAIN = (("ADD", (0, 0)), ("HARD_SWISH", (1,)), ("ADD", (1, 2)))


def steps(cpu_ns: int, wall_ns: int) -> Clock:
    """A clock that moves on by as much whenever it is read."""
    return Clock(
        wall_ns=count(0, wall_ns).__next__,
        cpu_ns=count(0, cpu_ns).__next__,
    )


@pytest.mark.parametrize("kind", ["INT8", "FLOAT32"])
def test_every_operator_is_timed_and_named(
    operators_file: Write, tmp_path: Path, kind: str
) -> None:
    file = operators_file(tmp_path / "chain.tflite", kind, CHAIN)
    found = time_operators(file)
    assert found.names == {0: "ADD", 1: "HARD_SWISH", 2: "ADD"}
    assert found.by_place.keys() == found.names.keys()
    assert min(found.whole_us, *found.by_place.values()) > 0


def test_a_time_is_that_of_one_run(operators_file: Write, tmp_path: Path) -> None:
    file = operators_file(tmp_path / "chain.tflite", "INT8", CHAIN)
    # a block is full after four runs of half a millisecond each
    found = time_operators(file, [1], clock=steps(cpu_ns=28_000, wall_ns=500_000))
    assert found.names == {1: "HARD_SWISH"}
    assert (found.whole_us, found.by_place) == (7.0, {1: 7.0})


def test_rounds_end_at_the_limit_but_not_before_the_third(
    operators_file: Write, tmp_path: Path
) -> None:
    file = operators_file(tmp_path / "chain.tflite", "INT8", CHAIN)
    rounds = {}
    for limit_s in (1e-9, 1e9):
        cpu = count(0, 1000)
        time_operators(
            file,
            [],
            limit_s=limit_s,
            clock=Clock(wall_ns=count(0, 2_000_000).__next__, cpu_ns=cpu.__next__),
        )
        rounds[limit_s] = next(cpu) // 1000 // 2
    assert rounds == {1e-9: 3, 1e9: 11}


def test_a_clock_that_stands_still_holds_nothing_up(operators_file: Write, tmp_path: Path) -> None:
    file = operators_file(tmp_path / "chain.tflite", "INT8", CHAIN)
    assert time_operators(file, [0], clock=steps(cpu_ns=0, wall_ns=0)).by_place == {0: 0.0}


def test_what_does_not_run_alone_is_left_out(operators_file: Write, tmp_path: Path) -> None:
    file = operators_file(tmp_path / "one.tflite", "INT32", (("ADD", (0, 0)), ("DIV", (1, 1))))
    tables = read_model(file.read_bytes())
    one = add_shape(tables, [1], "one")  # a constant of int32
    tables.subgraphs[0].operators[0].inputs = [0, one]
    file.write_bytes(write_model(tables))
    # inputs are 0: in the file it is 1 / 1, alone 0 / 0
    assert time_operators(file).names == {0: "ADD"}


def test_what_does_not_run_at_all_is_refused_by_name(operators_file: Write, tmp_path: Path) -> None:
    file = operators_file(tmp_path / "quotient.tflite", "INT32", (("DIV", (0, 0)),))
    with pytest.raises(ExportFailed, match=r"quotient\.tflite: LiteRT .* cannot run"):
        time_operators(file)


def test_garbage_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "garbage.tflite"
    file.write_bytes(b"hello world")
    with pytest.raises(ExportFailed, match=r"garbage\.tflite: LiteRT .* cannot run"):
        time_operators(file)
