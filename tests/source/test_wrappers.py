from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeship.errors import ConfigurationError
from edgeship.source.wrappers import (
    NESTS,
    PREFIXES,
    choice_notes,
    choose_candidate,
    find_candidates,
    without_prefixes,
)

OWN = ("conv.weight", "fc.weight")


def named(*names: str, value: float = 0.0) -> dict[str, Tensor]:
    return {name: torch.full((2,), value) for name in names}


def prefixed(prefix: str, value: float = 0.0) -> dict[str, Tensor]:
    return named(*(prefix + name for name in OWN), value=value)


def chosen(value: object, wanted: tuple[str, ...] = OWN) -> tuple[dict[str, Tensor], list[str]]:
    candidates = find_candidates(value, where="w.pt")
    candidate = choose_candidate(candidates, wanted)
    return candidate.tensors, list(choice_notes(candidates, candidate))


@pytest.mark.parametrize("key", NESTS)
def test_weights_are_found_below_every_key_of_training_scripts(key: str) -> None:
    tensors, notes = chosen({"epoch": 3, key: named(*OWN), "optimizer": {"state": {}}})
    assert list(tensors) == list(OWN)
    assert notes == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "ddp.", "model.", "student.", "net."])
@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod."])
def test_a_prefix_before_every_name_is_taken_off(prefix: str, outer: str) -> None:
    tensors, _ = chosen(prefixed(outer + prefix))
    assert list(tensors) == list(OWN)


@pytest.mark.parametrize("prefix", ["model.", "student.", "net."])
def test_an_ambiguous_prefix_stays_where_the_module_has_it(prefix: str) -> None:
    wanted = tuple(prefix + name for name in OWN)
    assert tuple(chosen(prefixed(prefix), wanted)[0]) == wanted


def test_an_ambiguous_prefix_stays_where_there_is_no_module_to_compare() -> None:
    tensors = find_candidates(prefixed("model."), where="w")[0].tensors
    assert list(tensors) == [f"model.{name}" for name in OWN]


def test_a_prefix_on_some_names_is_part_of_them() -> None:
    value = {**named("conv.weight"), **named("model.fc.weight")}
    assert list(chosen(value)[0]) == ["conv.weight", "model.fc.weight"]


@pytest.mark.parametrize("student", ["student.", ""])
def test_of_a_distillation_checkpoint_the_student_is_taken_and_it_is_said(student: str) -> None:
    value = {**prefixed("teacher.", 1.0), **prefixed(student, 2.0)}
    tensors, notes = chosen(value)
    assert list(tensors) == list(OWN)
    assert all(float(tensor[0]) == 2.0 for tensor in tensors.values())
    assert notes == ["of the checkpoint, teacher.* (2 tensors) is left out"]


def test_the_student_is_taken_where_there_is_no_module_to_compare() -> None:
    value = {**prefixed("teacher.", 1.0), **prefixed("student.", 2.0)}
    assert list(find_candidates(value, where="w")[0].tensors) == list(OWN)


def test_a_module_that_has_teacher_and_student_gets_both() -> None:
    value = {**prefixed("teacher.", 1.0), **prefixed("student.", 2.0)}
    tensors, notes = chosen(value, tuple(value))
    assert list(tensors) == list(value)
    assert notes == []


def test_a_module_that_has_a_student_gets_it_with_its_prefix() -> None:
    value = {**prefixed("teacher.", 1.0), **prefixed("student.", 2.0)}
    wanted = tuple(f"student.{name}" for name in OWN)
    assert tuple(chosen(value, wanted)[0]) == wanted


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("average", ["ema", "model_ema"])
def test_of_model_and_average_the_model_is_taken_in_any_order_and_it_is_said(
    average: str, is_first: bool
) -> None:
    pairs = [(average, named(*OWN, value=1.0)), ("model", named(*OWN, value=2.0))]
    tensors, notes = chosen(dict(pairs if is_first else pairs[::-1]))
    assert float(tensors["fc.weight"][0]) == 2.0
    assert notes == [f"the checkpoint holds model, {average}: model is taken"]


def test_an_average_beside_the_weights_by_prefix_is_left_out() -> None:
    tensors, notes = chosen({**prefixed("model.", 2.0), **prefixed("ema_model.", 1.0)})
    assert list(tensors) == list(OWN)
    assert float(tensors["fc.weight"][0]) == 2.0
    assert "ema_model.*" in notes[0]


def test_the_one_whose_names_are_the_modules_is_taken() -> None:
    value = {"model": named("other.weight"), "ema": named(*OWN)}
    tensors, notes = chosen(value)
    assert list(tensors) == list(OWN)
    assert notes == ["the checkpoint holds model, ema: ema is taken"]


def test_student_and_teacher_in_dicts_of_their_own() -> None:
    tensors, _ = chosen({"student": named(*OWN, value=2.0), "teacher": named(*OWN, value=1.0)})
    assert float(tensors["fc.weight"][0]) == 2.0


@pytest.mark.parametrize("value", [{}, {"epoch": 1}, [1], None, {"a": {"b": {}}}])
def test_no_tensors_is_an_error_that_says_what_is_there(value: object) -> None:
    with pytest.raises(ConfigurationError, match="no tensors") as caught:
        find_candidates(value, where="w.pt")
    assert caught.value.problems[0].where == "w.pt"


def nest(keys: list[str], tensors: Mapping[str, Tensor]) -> object:
    value: object = dict(tensors)
    for key in keys:
        value = {"step": 1, key: value}
    return value


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    keys=st.lists(st.sampled_from(NESTS), max_size=4),
    prefixes=st.lists(st.sampled_from((*PREFIXES, "model.", "student.")), max_size=4),
)
def test_any_wrapping_is_undone(keys: list[str], prefixes: list[str]) -> None:
    tensors, _ = chosen(nest(keys, prefixed("".join(prefixes), 3.0)))
    assert list(tensors) == list(OWN)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=st.lists(st.text("ab.module_orig", min_size=1, max_size=12), unique=True, max_size=4))
def test_taking_prefixes_off_loses_no_tensor(names: list[str]) -> None:
    assert len(without_prefixes(named(*names))) == len(names)
