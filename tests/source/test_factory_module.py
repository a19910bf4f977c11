"""What becomes of weights on their way into a module; `test_model` has the plain cases."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from edgeship.errors import ConfigurationError
from edgeship.project import Factory, FactorySource
from edgeship.source.factory_module import load_factory_module
from edgeship.source.imports import project_imports

NET = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        {tie}
    def forward(self, x):
        return self.head(self.embed(x))

def build({parameters}): return Net({width})
"""
TIE = "self.head.weight = self.embed.weight"


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("embed.weight", "head.weight")
    return {name: torch.randn(5, 4, generator=generator) for name in names}


def load(
    directory: Path,
    stored: object,
    *,
    tie: str = "",
    parameters: str = "",
    width: str = "",
    file: str = "w.pt",
) -> tuple[nn.Module, tuple[str, ...]]:
    (directory / "net.py").write_text(NET.format(tie=tie, parameters=parameters, width=width))
    if file.endswith(".pt"):
        torch.save(stored, directory / file)
    factory = Factory(file=directory / "net.py", attribute="build")
    with project_imports(directory):
        return load_factory_module(FactorySource(factory=factory, weights=directory / file))


def assert_loaded(module: nn.Module, expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(module.state_dict()[name], tensor.float()), name


def refusal(directory: Path, stored: object, **more: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(directory, stored, **more)
    assert all(problem.where and problem.remedy for problem in caught.value.problems)
    return caught.value


def test_plain_weights_give_no_notes(tmp_path: Path) -> None:
    module, notes = load(tmp_path, weights())
    assert_loaded(module, weights())
    assert notes == ()


def test_a_hugging_face_directory_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    save_file(weights(), tmp_path / "hf/model.safetensors")
    module, _ = load(tmp_path, None, file="hf")
    assert_loaded(module, weights())


def test_a_wrapped_pruned_distilled_checkpoint_loads_and_each_step_is_said(tmp_path: Path) -> None:
    head = nn.Linear(4, 5, bias=False)
    student = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": head})
    prune.random_unstructured(head, "weight", 0.5)  # type: ignore[no-untyped-call]  # torch's
    expected = head.weight.detach().clone()
    stored = {f"module.student.{name}": item for name, item in student.state_dict().items()}
    stored |= {f"module.teacher.{name}": item for name, item in weights().items()}
    module, notes = load(tmp_path, {"state_dict": stored, "epoch": 9})
    assert torch.equal(module.state_dict()["head.weight"], expected)
    assert notes == (
        "of the checkpoint, teacher.* (2 tensors) is left out",
        "1 pruned tensors were put together from name_orig and name_mask",
    )


def test_a_factory_with_shapes_sees_folded_names_of_the_student(tmp_path: Path) -> None:
    stored = {f"student.{name}": item for name, item in weights().items()}
    stored["student.head.weight_orig"] = stored.pop("student.head.weight")
    stored["student.head.weight_mask"] = torch.ones(5, 4)
    stored["teacher.x"] = torch.ones(1)
    width = "shapes['head.weight'][1]"
    module, _ = load(tmp_path, stored, parameters="shapes", width=width)
    assert_loaded(module, weights())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_without_loss_and_said(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in weights().items()}
    module, notes = load(tmp_path, stored)
    assert_loaded(module, stored)
    kind = str(dtype).removeprefix("torch.")
    assert notes == (f"2 tensors are stored in {kind}: the float model computes in float32",)


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_one_of_two_tied_tensors_is_enough(tmp_path: Path, kept: str) -> None:
    stored = {kept: weights()[kept]}
    module, _ = load(tmp_path, stored, tie=TIE)
    assert_loaded(module, {"embed.weight": stored[kept], "head.weight": stored[kept]})


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_a_missing_tensor_that_is_not_tied_is_missing(tmp_path: Path, kept: str) -> None:
    assert "is missing" in str(refusal(tmp_path, {kept: weights()[kept]}))


def test_two_values_for_one_tied_tensor_are_refused(tmp_path: Path) -> None:
    text = str(refusal(tmp_path, weights(), tie=TIE))
    assert "one tensor for it and head.weight, the checkpoint has two" in text
    same = dict.fromkeys(weights(), weights()["embed.weight"].clone())
    load(tmp_path, same, tie=TIE)


@pytest.mark.parametrize(
    "extra",
    [
        {"head.weight": torch.ones(5, 4, dtype=torch.int8)},
        {"head.weight": torch.ones(5, 4, dtype=torch.uint8)},
        {"head.weight": torch.ones(5, 1, dtype=torch.int32)},
        {"head.weight": torch.ones(5, 4).to(torch.float8_e4m3fn)},
        {"head.weight_scale": torch.ones(5)},
        {"head.SCB": torch.ones(5)},
    ],
)
def test_a_quantized_checkpoint_is_refused_by_name(
    tmp_path: Path, extra: dict[str, Tensor]
) -> None:
    (problem,) = refusal(tmp_path, weights() | extra).problems
    assert problem.what == "the checkpoint is quantized"
    assert problem.found is not None
    assert problem.found.startswith(next(iter(extra)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tensor_that_torch_quantized_is_refused_by_name(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(weights()["head.weight"], 0.1, 0, torch.qint8)
    assert "quantized" in str(refusal(tmp_path, weights() | {"head.weight": quantized}))


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(5, 4, dtype=torch.int64), torch.ones(5, 4, dtype=torch.complex64)],
)
def test_another_kind_of_number_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    (problem,) = refusal(tmp_path, weights() | {"head.weight": tensor}).problems
    assert problem.where == "w.pt: head.weight"
    assert problem.expected == "dense torch.float32"


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    tensor = weights()["head.weight"].to_sparse()
    assert "dense" in str(refusal(tmp_path, weights() | {"head.weight": tensor}))


def test_parametrized_weights_are_refused_with_a_remedy(tmp_path: Path) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5, bias=False))
    stored = {f"head.{name}": item for name, item in layer.state_dict().items()}
    stored["embed.weight"] = weights()["embed.weight"]
    (problem,) = refusal(tmp_path, stored).problems
    assert "remove_parametrizations" in problem.remedy


def test_of_many_misfits_of_one_kind_five_are_shown(tmp_path: Path) -> None:
    stored = weights() | {f"old.{index}": torch.ones(1) for index in range(20)}
    problems = refusal(tmp_path, stored).problems
    assert len(problems) == 6
    assert "15 more" in problems[-1].what
