import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from edgeship.source.pruning import fold_pruning, parametrization_problems


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("names", [["weight"], ["weight", "bias"]])
def test_folding_equals_what_torch_makes_permanent(names: list[str]) -> None:
    pruned = net()
    for module in pruned:  # type: ignore[attr-defined]  # a Sequential
        for name in names:
            prune.l1_unstructured(module, name, amount=0.5)  # type: ignore[no-untyped-call]  # torch's
    stored = copy.deepcopy(pruned.state_dict())
    for module in pruned:  # type: ignore[attr-defined]  # likewise
        for name in names:
            prune.remove(module, name)  # type: ignore[no-untyped-call]  # likewise
    folded, count = fold_pruning(stored)
    assert count == 2 * len(names)
    assert_equal(folded, pruned.state_dict())


def test_a_module_that_prunes_itself_gets_the_parts() -> None:
    stored = {"a.weight_orig": torch.ones(2), "a.weight_mask": torch.zeros(2)}
    folded, count = fold_pruning(stored, own=stored)
    assert_equal(folded, stored)
    assert count == 0


@pytest.mark.parametrize(
    "stored",
    [
        {"a_orig": torch.ones(2)},
        {"a_mask": torch.ones(2)},
        {"a_orig": torch.ones(2), "a_mask": torch.ones(3)},
        {"a_orig": torch.ones(2), "a_mask": torch.ones(2), "a": torch.ones(2)},
        {"a_orig": torch.ones(2, dtype=torch.int8), "a_mask": torch.ones(2)},
    ],
)
def test_what_is_no_pruned_pair_stays(stored: dict[str, Tensor]) -> None:
    folded, count = fold_pruning(stored)
    assert_equal(folded, stored)
    assert count == 0


def test_half_precision_weights_stay_half() -> None:
    stored = {"a_orig": torch.ones(2).half(), "a_mask": torch.tensor([0.0, 1.0])}
    folded, _ = fold_pruning(stored)
    assert_equal(folded, {"a": torch.tensor([0.0, 1.0]).half()})


@settings(max_examples=50, deadline=None, derandomize=True)
@given(values=st.lists(st.tuples(st.floats(-9, 9, width=32), st.booleans()), min_size=1))
def test_a_folded_weight_is_zero_where_the_mask_is(values: list[tuple[float, bool]]) -> None:
    weight = torch.tensor([value for value, _ in values])
    mask = torch.tensor([float(kept) for _, kept in values])
    folded, _ = fold_pruning({"w_orig": weight, "w_mask": mask})
    assert torch.equal(folded["w"], torch.where(mask > 0, weight, torch.zeros(())))


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "old"])
def test_parametrized_weights_are_refused_with_the_call_that_removes_them(kind: str) -> None:
    own = net().state_dict()
    layer = nn.Linear(4, 5)
    if kind == "old":
        torch.nn.utils.weight_norm(layer)
    elif kind == "weight_norm":
        parametrizations.weight_norm(layer)
    else:
        parametrizations.spectral_norm(layer)
    stored = {f"1.{name}": tensor for name, tensor in layer.state_dict().items()}
    (problem,) = parametrization_problems("w.pt", stored, own)
    assert problem.found is not None
    assert "1." in problem.found
    wanted = "remove_weight_norm" if kind == "old" else "remove_parametrizations"
    assert wanted in problem.remedy


def test_a_module_with_the_same_parametrization_is_none_of_that() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 5))
    state = layer.state_dict()
    assert parametrization_problems("w", state, state) == []
    assert parametrization_problems("w", {"a_g": layer.weight, "a_v": layer.weight}, ["b"]) == []
