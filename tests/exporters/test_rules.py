import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.protocol import Recipe
from edgeship.exporters.rules import kept_in_float, precision_problems
from edgeship.project import Rule

MODULES = {
    "a": "stem",
    "b": "layers.0.conv1",
    "c": "layers.0.conv2",
    "d": "layers.0",
    "e": "layers.1.conv1",
    "f": "layers.10",
    "g": "",
}


def recipe(*rules: tuple[str, str], precision: str = "int8") -> Recipe:
    return Recipe(
        precision=precision, rules=tuple(Rule(match=match, precision=to) for match, to in rules)
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], ""),
        ([("stem", "fp32")], "a"),
        ([("layers.0", "fp32")], "bcd"),
        ([("layers.0.*", "fp32")], "bc"),
        ([("layers.?", "fp32")], "bcde"),
        ([("layers", "fp32")], "bcdef"),
        ([("*.conv1", "fp32")], "be"),
        ([("layers.*", "fp32"), ("layers.1", "int8")], "bcdf"),
        ([("layers.1", "int8"), ("layers.*", "fp32")], "bcdef"),
        ([("*", "fp32"), ("layers.*", "int8")], "ag"),
    ],
)
def test_a_rule_finds_what_is_inside_of_its_modules(
    rules: list[tuple[str, str]], expected: str
) -> None:
    assert kept_in_float(MODULES, recipe(*rules)) == list(expected)


@pytest.mark.parametrize("match", ["layer", "layers.2", "conv1", "layers.0.conv1.weight", "Stem"])
def test_a_rule_that_finds_nothing_is_an_error_with_what_is_there(match: str) -> None:
    with pytest.raises(ConfigurationError, match="matches no module") as raised:
        kept_in_float(MODULES, recipe(("stem", "fp32"), (match, "fp32")))
    (problem,) = raised.value.problems
    assert problem.where == f"edgeship.toml: rule {match!r}"
    assert any(module in str(problem.expected) for module in MODULES.values() if module)


def test_a_model_without_modules_says_so() -> None:
    with pytest.raises(ConfigurationError, match="expected no rule"):
        kept_in_float({"a": ""}, recipe(("stem", "fp32")))


def test_every_precision_that_cannot_be_made_is_a_problem() -> None:
    rules = recipe(("stem", "fp8"), ("stem", "fp32"), precision="q4_0")
    problems = list(precision_problems(rules, "here", ("fp32", "int8")))
    assert [problem.what.split("'")[1] for problem in problems] == ["fp8", "q4_0"]
    assert {problem.expected for problem in problems} == {"fp32, int8"}


@pytest.mark.parametrize(
    ("precision", "of_rule"),
    [("fp32", "int8"), ("fp16", "int8"), ("int8", "fp16"), ("dynamic", "int8"), ("fp32", "fp16")],
)
def test_a_file_has_one_precision_and_fp32(precision: str, of_rule: str) -> None:
    made = ("fp32", "fp16", "int8", "dynamic")
    rules = [("stem", of_rule), ("stem", "fp32"), ("stem", precision)]
    (problem,) = precision_problems(recipe(*rules, precision=precision), "here", made)
    assert problem.found == f"stem -> {of_rule}"
    assert problem.where == "here.rules"
    assert of_rule in problem.remedy
