from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from edgeship.evaluate.delegates import DelegateCheck, check_delegates, delegate_line
from edgeship.runtimes.delegation import Delegation, examine_delegation

Write = Callable[[Path, str, Sequence[tuple[str, Sequence[int]]]], Path]
SWISHES = (
    ("ADD", (0, 0)),
    ("HARD_SWISH", (1,)),
    ("ADD", (1, 2)),
    ("HARD_SWISH", (3,)),
    ("ADD", (3, 4)),
)


def delegation(partitions: int, outside: Mapping[str, int]) -> Delegation:
    places = tuple(range(sum(outside.values())))
    return Delegation(partitions=partitions, outside=outside, places=places)


def test_an_integer_file_with_hard_swishes_pays_for_them(
    operators_file: Write, tmp_path: Path
) -> None:
    file = operators_file(tmp_path / "int8.tflite", "INT8", SWISHES)
    found = check_delegates(file)
    assert found.delegation == examine_delegation(file)
    assert found.outside_us.keys() == {"HARD_SWISH"}
    assert 0 < found.share <= 1
    start = "XNNPACK takes it in 3 parts; 2 HARD_SWISH run outside, "
    assert found.line.startswith(start)
    assert found.line.endswith(" % of the time on this host")


def test_a_float_file_pays_nothing(operators_file: Write, tmp_path: Path) -> None:
    found = check_delegates(operators_file(tmp_path / "fp32.tflite", "FLOAT32", SWISHES))
    assert found.line == "XNNPACK takes it whole"
    assert (found.outside_us, found.share) == ({}, 0.0)


def test_the_dearest_comes_first() -> None:
    check = DelegateCheck(
        delegation=delegation(14, {"PAD": 1, "HARD_SWISH": 13}),
        outside_us={"HARD_SWISH": 290.0, "PAD": 10.0},
        whole_us=400.0,
    )
    assert check.line == (
        "XNNPACK takes it in 14 parts; 13 HARD_SWISH and 1 PAD run outside, "
        "75 % of the time on this host"
    )


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (delegation(1, {"PAD": 1}), "XNNPACK takes it in 1 part; 1 PAD runs outside, 50 % "),
        (delegation(0, {"GELU": 2}), "XNNPACK takes none of it; 2 GELU run outside, 50 % "),
        (
            delegation(2, {"PAD": 1, "GELU": 2, "CAST": 1}),
            "XNNPACK takes it in 2 parts; 1 PAD, 2 GELU and 1 CAST run outside, 50 % ",
        ),
    ],
)
def test_the_line_counts(found: Delegation, line: str) -> None:
    assert delegate_line(found, 0.5) == f"{line}of the time on this host"


def test_no_share_is_above_all() -> None:
    check = DelegateCheck(
        delegation=delegation(1, {"PAD": 1}), outside_us={"PAD": 2.1}, whole_us=2.0
    )
    assert check.share == 1.0
