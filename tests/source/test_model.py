from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeship.errors import ConfigurationError
from edgeship.project import Factory, FactorySource, InputSection, ModelSection
from edgeship.source.imports import project_imports
from edgeship.source.model import Model, load_model, output_tensors
from edgeship.vocabulary import Task

NET = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc1 = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x)).relu())

"""
PRUNED = NET + "def build(shapes): return Net(shapes['fc1.weight'][0])"
FIXED = NET + "def build(): return Net()"

Load = Callable[..., Model]


def weights_of(width: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "fc1.weight": (width, 3),
        "fc1.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "norm.running_mean": (width,),
        "norm.running_var": (width,),
        "fc2.weight": (2, width),
        "fc2.bias": (2,),
    }
    return {
        name: torch.rand(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a project of one file and its weights, and loads it."""

    def load_project(
        text: str,
        weights: Mapping[str, Tensor],
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        labels: str | None = None,
        task: Task | None = None,
    ) -> Model:
        (tmp_path / "net.py").write_text(text)
        save_file(dict(weights), tmp_path / "w.safetensors")
        section = ModelSection(
            name="net",
            source=FactorySource(
                factory=Factory(file=tmp_path / "net.py", attribute="build"),
                weights=tmp_path / "w.safetensors",
            ),
            task=task,
            inputs=tuple(
                InputSection(name=name, shape=shape, layout=None, preprocess=None)
                for name, shape in (shapes or {"x": (1, 3)}).items()
            ),
            labels=None if labels is None else tmp_path / labels,
        )
        with project_imports(tmp_path):
            return load_model(section)

    return load_project


def forward(body: str, parameters: str = "self, x") -> str:
    """A module with one weight `w`, and a factory."""
    return (
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.ones(1))\n"
        f"    def forward({parameters}):\n"
        f"        {body}\n"
        "def build(): return Net()\n"
    )


def refusal(load: Load, text: str, weights: Mapping[str, Tensor], **more: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text, weights, **more)
    assert all(problem.where and problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def test_a_factory_without_arguments_builds_the_module(load: Load) -> None:
    model = load(FIXED, weights_of())
    assert model.contract.outputs[0].shape == (1, 2)


@pytest.mark.parametrize("width", [2, 7])
def test_a_factory_with_an_argument_gets_the_shapes(load: Load, width: int) -> None:
    model = load(PRUNED, weights_of(width))
    assert tuple(model.module.state_dict()["fc2.weight"].shape) == (2, width)


@pytest.mark.parametrize("parameters", ["width=4", "*width", "**width", "*, width=4"])
def test_a_factory_whose_arguments_all_have_defaults_is_called_without(
    load: Load, parameters: str
) -> None:
    text = NET + f"def build({parameters}): return Net(width or 4)"
    assert tuple(load(text, weights_of()).module.state_dict()["fc1.bias"].shape) == (4,)


def test_the_weights_are_those_of_the_checkpoint(load: Load) -> None:
    weights = weights_of()
    state = load(FIXED, weights).module.state_dict()
    for name, tensor in weights.items():
        assert torch.equal(state[name], tensor), name


def test_the_module_is_in_evaluation_mode_and_float32(load: Load) -> None:
    text = NET + "def build(): return Net().double().train()"
    module = load(text, weights_of()).module
    assert not any(part.training for part in module.modules())
    floats = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_weights_become_float32(load: Load, dtype: torch.dtype) -> None:
    weights = weights_of(dtype=dtype)
    state = load(FIXED, weights).module.state_dict()
    assert torch.equal(state["fc1.weight"], weights["fc1.weight"].float())


def test_a_half_module_does_not_round_float32_weights(load: Load) -> None:
    weights = weights_of()
    state = load(NET + "def build(): return Net().half()", weights).module.state_dict()
    assert torch.equal(state["fc1.weight"], weights["fc1.weight"])


@pytest.mark.parametrize("has_counter", [True, False])
def test_counters_of_batchnorm_are_optional(load: Load, has_counter: bool) -> None:
    counter = {"norm.num_batches_tracked": torch.tensor(7)} if has_counter else {}
    load(FIXED, {**weights_of(), **counter})


def test_a_counter_of_a_norm_that_the_module_has_not_is_no_error(load: Load) -> None:
    load(FIXED, {**weights_of(), "old.num_batches_tracked": torch.tensor(7)})


def test_missing_and_unexpected_tensors_are_named_with_the_closest(load: Load) -> None:
    weights = weights_of()
    weights["fc_1.weight"] = weights.pop("fc1.weight")
    text = refusal(load, FIXED, weights)
    assert (
        "fc1.weight: a tensor of the module is missing: found the closest is 'fc_1.weight'" in text
    )
    assert "fc_1.weight: a tensor has no place in the module" in text


def test_every_misshapen_tensor_is_named_with_both_shapes(load: Load) -> None:
    text = refusal(load, FIXED, weights_of(6))
    assert (
        "fc1.weight: the shape is another than the module's: expected (4, 3), found (6, 3)" in text
    )
    assert "fc1.bias" in text
    assert "one argument" in text


def test_of_many_missing_tensors_five_are_shown_and_the_rest_counted(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(FIXED, {"zzz": torch.zeros(1)})
    missing = [problem for problem in caught.value.problems if "missing" in problem.what]
    assert len(missing) == 6
    assert "3 more" in missing[-1].what


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("def build(): return Net().no_such_part", "AttributeError"),
        ("def build(shapes): return Net(shapes['stem.weight'][0])", "KeyError: 'stem.weight'"),
        ("def build(a, b): return Net()", "TypeError"),
        ("import sys\ndef build(): sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_factory_that_fails_is_named_with_its_reason(
    load: Load, factory: str, found: str
) -> None:
    text = refusal(load, NET + factory, weights_of())
    assert text.startswith("net.py:build: the factory fails")
    assert found in text


@pytest.mark.parametrize("result", ["None", "Net", "Net().state_dict()"])
def test_a_factory_that_returns_no_module_is_named(load: Load, result: str) -> None:
    text = refusal(load, NET + f"def build(): return {result}", weights_of())
    assert "the factory returns no module: expected torch.nn.Module" in text


def test_a_module_that_rejects_the_input_is_named_with_the_shape(load: Load) -> None:
    text = refusal(load, FIXED, weights_of(), shapes={"x": (1, 5)})
    assert "cannot be run on inputs x [1, 5]" in text
    assert "model.inputs" in text


@pytest.mark.parametrize("value", ["3", "[x, 3]", "{}", "[]", "(x, [x])"])
def test_a_result_that_is_no_tensors_is_named(load: Load, value: str) -> None:
    text = refusal(load, forward(f"return {value}"), {"w": torch.ones(1)})
    assert "a tensor, or a sequence or mapping of tensors" in text


def test_an_output_that_numpy_has_no_type_for_is_named(load: Load) -> None:
    text = refusal(load, forward("return x.to(torch.bfloat16)"), {"w": torch.ones(1)})
    assert "BFloat16" in text


@pytest.mark.parametrize(
    ("labels", "task", "name"),
    [
        (None, None, "output"),
        ("labels.txt", None, "logits"),
        (None, Task.CLASSIFICATION, "logits"),
        (None, Task.FEATURE_EXTRACTION, "output"),
    ],
)
def test_the_output_is_logits_where_the_model_classifies(
    load: Load, labels: str | None, task: Task | None, name: str
) -> None:
    (output,) = load(FIXED, weights_of(), labels=labels, task=task).contract.outputs
    assert (output.name, output.shape, output.dtype) == (name, (1, 2), "float32")
    assert output.labels == labels


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("(x, x * 2)", ["output_0", "output_1"]),
        ("[x]", ["output_0"]),
        ("{'boxes': x, 'scores': x * 2}", ["boxes", "scores"]),
    ],
)
def test_outputs_of_tuples_and_dicts_have_names_in_order(
    load: Load, value: str, names: list[str]
) -> None:
    model = load(forward(f"return {value}"), {"w": torch.ones(1)}, labels="l.txt")
    assert [spec.name for spec in model.contract.outputs] == names
    assert [spec.labels for spec in model.contract.outputs] == ["l.txt", None][: len(names)]
    found = model.run({"x": np.ones((1, 3), np.float32)})
    assert list(found) == names
    assert found[names[-1]].max() == len(names)


def test_the_contract_has_the_types_of_the_outputs(load: Load) -> None:
    model = load(forward("return x.argmax(1), x > 0"), {"w": torch.ones(1)})
    assert [spec.dtype for spec in model.contract.outputs] == ["int64", "bool"]


def test_inputs_go_in_by_the_order_of_the_contract(load: Load) -> None:
    model = load(
        forward("return a - b", "self, a, b"),
        {"w": torch.ones(1)},
        shapes={"a": (1, 2), "b": (1, 2)},
    )
    inputs = {"b": np.full((1, 2), 1, np.float32), "a": np.full((1, 2), 5, np.float32)}
    assert model.run(inputs)["output"].tolist() == [[4, 4]]


def test_a_run_equals_the_module(load: Load) -> None:
    model = load(FIXED, weights_of())
    x = np.random.default_rng(0).standard_normal((1, 3)).astype(np.float32)
    expected = model.module(torch.tensor(x)).numpy()
    assert np.array_equal(model.run({"x": x})["output"], expected)


def test_a_module_that_works_in_place_does_not_change_the_callers_input(load: Load) -> None:
    model = load(forward("return x.sub_(3).relu_() * self.w"), {"w": torch.ones(1)})
    x = np.ones((1, 3), np.float32)
    x.setflags(write=False)
    assert model.run({"x": x})["output"].tolist() == [[0, 0, 0]]
    assert x.tolist() == [[1, 1, 1]]


def test_a_subclass_of_dict_counts_as_a_mapping() -> None:
    class Result(dict[str, Tensor]):
        pass

    assert list(output_tensors(Result(a=torch.zeros(1)))) == ["a"]
    with pytest.raises(TypeError, match="Linear"):
        output_tensors(nn.Linear(1, 1))
