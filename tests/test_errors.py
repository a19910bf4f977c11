from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeship.errors
from edgeship.errors import (
    ConfigurationError,
    EdgeshipError,
    ExitCode,
    Problem,
    UnknownName,
    closest_names,
    unknown_name,
)
from edgeship.vocabulary import Format


def _below(kind: type[EdgeshipError]) -> list[type[EdgeshipError]]:
    return [leaf for child in kind.__subclasses__() for leaf in (child, *_below(child))]


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    text = edgeship.errors.__doc__ or ""
    told = {name: int(code) for name, code in re.findall(r"[├└]── (\w+) +(\d+) ", text)}
    real = {
        kind.__name__: int(kind.exit_code)
        for kind in _below(EdgeshipError)
        if kind.__module__ == "edgeship.errors"
    }
    assert told == real


def test_every_refusal_has_a_failing_exit_code_that_is_not_a_bugs() -> None:
    codes = {kind.exit_code for kind in _below(EdgeshipError)}
    assert not codes & {ExitCode.OK, ExitCode.INTERNAL}


def test_problem_says_where_what_contrast_and_remedy_in_one_line() -> None:
    problem = Problem(where="a.toml: size", what="no unit", expected="kB", found="4", remedy="add")
    assert str(problem) == "a.toml: size: no unit: expected kB, found 4; add"


@pytest.mark.parametrize(
    ("expected", "found", "text"),
    [
        (None, None, "here: wrong; mend"),
        ("a", None, "here: wrong: expected a; mend"),
        (None, "b", "here: wrong: found b; mend"),
    ],
)
def test_problem_leaves_out_the_side_that_is_not_known(
    expected: str | None, found: str | None, text: str
) -> None:
    problem = Problem(where="here", what="wrong", expected=expected, found=found, remedy="mend")
    assert str(problem) == text
    assert set(problem.to_json()) == {"where", "what", "remedy"} | {
        name for name, side in (("expected", expected), ("found", found)) if side is not None
    }


@given(st.lists(st.builds(Problem, where=st.text(), what=st.text(), remedy=st.text()), max_size=5))
@settings(deadline=None)
def test_error_carries_its_problems_and_tells_each(problems: list[Problem]) -> None:
    error = EdgeshipError(*problems)
    assert error.problems == tuple(problems)
    assert str(error) == "\n".join(str(problem) for problem in problems)


def test_unknown_name_is_a_configuration_error_that_offers_the_closest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'tflite'") as caught:
        raise UnknownName(kind="format", name="tflit", choices=("onnx", "tflite"), where="cli")
    assert isinstance(caught.value, UnknownName)
    assert caught.value.choices == ("onnx", "tflite")
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert len(caught.value.problems) == 1


def test_unknown_name_shows_members_of_an_enumeration_as_people_write_them() -> None:
    problem = unknown_name(kind="format", name="tflit", choices=list(Format), where="cli")
    assert problem.expected == "onnx, tflite, gguf, tensorrt"
    assert problem.remedy == "did you mean 'tflite'?"


def test_unknown_name_that_is_like_none_still_lists_the_choices() -> None:
    problem = unknown_name(kind="format", name="zzzz", choices=("onnx", "tflite"), where="cli")
    assert problem.expected == "onnx, tflite"
    assert problem.remedy


def test_unknown_name_without_any_choice_says_so() -> None:
    problem = unknown_name(kind="target", name="x", choices=(), where="cli")
    assert problem.expected == "no target at all"


def test_closest_names_puts_the_closest_first() -> None:
    assert closest_names("precison", ["position", "precision", "ranges"])[0] == "precision"
    assert closest_names("x", ["precision"]) == []
