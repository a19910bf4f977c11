import math
from typing import Any

import numpy as np
import pytest

from edgeship.device_tests.board.compare import compare
from edgeship.device_tests.board.golden import judge_together


def expected(values: Any, kind: str, limit: float, dtype: str = "float32") -> dict[str, Any]:  # noqa: ANN401 - numpy takes many
    return {"values": np.array(values, dtype), "compare": {"kind": kind, "limit": limit}}


def test_lsb_counts_steps_of_stored_integers_without_overflow() -> None:
    wanted = expected([[-128, 127, 0]], "lsb", 2, "int8")
    found = compare(np.array([[127, 127, 2]], np.int8), wanted, {"scale": 0.5, "zero_point": 3})
    assert (found["difference"], found["is_ok"]) == (255.0, False)
    found = compare(np.array([[-126, 125, 2]], np.int8), wanted, {})
    assert (found["difference"], found["is_ok"]) == (2.0, True)


def test_close_takes_integers_for_what_they_mean() -> None:
    spec = {"scale": 0.25, "zero_point": -10}
    wanted = expected([[1.0, -2.0]], "close", 0.3)
    found = compare(np.array([[-6, -17]], np.int8), wanted, spec)  # 1.0 and -1.75
    assert (found["difference"], found["is_ok"]) == (0.25, True)
    assert compare(np.array([[-6, -16]], np.int8), wanted, spec)["is_ok"] is False


def test_exact_counts_values_whose_bits_differ() -> None:
    wanted = expected([0.0, 1.0, math.nan], "exact", 0)
    assert compare(wanted["values"].copy(), wanted, {})["is_ok"] is True
    found = compare(np.array([-0.0, 1.0, math.nan], np.float32), wanted, {})
    assert (found["difference"], found["is_ok"]) == (1.0, False)


def test_argmax_is_the_share_of_rows_with_another_one() -> None:
    wanted = expected([[[1, 2], [4, 3]]], "argmax", 0.4)
    found = compare(np.array([[[0, 9], [0, 9]]], np.float32), wanted, {})
    assert (found["difference"], found["is_ok"]) == (0.5, False)


def test_kld_is_the_divergence_from_the_expected_distribution() -> None:
    p, q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.25, 0.5, 0.125, 0.125])
    with np.errstate(divide="ignore"):
        wanted = expected([np.log(p)], "kld", 0.4)
    found = compare(np.log(q)[np.newaxis].astype(np.float32), wanted, {})
    by_hand = 0.5 * math.log(2) + 0.25 * math.log(0.5) + 0.25 * math.log(2)
    assert found["difference"] == pytest.approx(by_hand, rel=1e-6)
    assert found["is_ok"] is True


def test_tokens_are_judged_over_all_cases_together() -> None:
    wanted = expected([[1, 2, 3, 4]], "tokens", 0.7, "int32") | {"of": "float-model"}
    events = []
    for tokens in ([1, 2, 3, 4], [1, 2, 9, 4]):
        found = compare(np.array([tokens], np.int32), wanted, {})
        assert found["is_ok"] is None
        events.append(found | {"of": "float-model", "name": "tokens", "case": "x"})
    assert [event["difference"] for event in events] == [0.0, 0.5]
    (together,) = judge_together(events)
    assert (together["difference"], together["is_ok"]) == (0.25, True)
    (together,) = judge_together(events[1:])
    assert together["is_ok"] is False


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "the runtime gives no output of that name"),
        (np.zeros((1, 3), np.float32), "float32[1, 3] instead of float32[1, 2]"),
        (np.array([[0, math.nan]], np.float32), "NaN or infinite values"),
        (np.array([[0, math.inf]], np.float32), "NaN or infinite values"),
    ],
)
def test_what_cannot_be_compared_is_wrong_and_says_why(
    found: np.ndarray | None, message: str
) -> None:
    event = compare(found, expected([[0, 0]], "close", 1.0), {})
    assert (event["is_ok"], event["difference"], event["message"]) == (False, None, message)


def test_stored_integers_of_another_type_are_no_match() -> None:
    event = compare(np.zeros((1, 2), np.uint8), expected([[0, 0]], "lsb", 9, "int8"), {})
    assert (event["is_ok"], event["message"]) == (False, "uint8[1, 2] instead of int8[1, 2]")


def test_a_kind_that_is_unknown_is_never_ok() -> None:
    event = compare(np.zeros((1, 2), np.float32), expected([[0, 0]], "cosine", 1.0), {})
    assert event["is_ok"] is False
