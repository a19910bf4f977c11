from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SHARE = 0.3

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Floats = npt.NDArray[np.float64]


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"digits_example_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


digits, distill, model, prune = map(load_module, ("digits", "distill", "model", "prune"))


def shapes_of(state: State) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def build_with(state: State) -> nn.Module:
    network: nn.Module = model.build(shapes_of(state))
    network.load_state_dict(state, strict=True)
    return network.eval()


@pytest.fixture
def state() -> State:
    """A student's tensors, with norms as uneven as after training."""
    torch.manual_seed(3)
    network: nn.Module = model.DigitNet(
        stem=20,
        blocks=[
            model.BlockWidths(hidden=20, out=20, has_shortcut=False),
            model.BlockWidths(hidden=30, out=40, has_shortcut=True),
            model.BlockWidths(hidden=50, out=40, has_shortcut=False),
        ],
    )
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        if name.endswith(("norm.bias", "norm1.bias", "norm2.bias", "running_mean")):
            tensor.normal_(0, 0.3)
    return state


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(4))


def test_pruning_makes_each_tensor_smaller_by_the_share(state: State) -> None:
    shapes = shapes_of(prune.prune_channels(state, SHARE))
    weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    assert weights == {
        "stem.conv.weight": (14, 1, 3, 3),
        "blocks.0.conv1.weight": (14, 14, 3, 3),
        "blocks.0.conv2.weight": (14, 14, 3, 3),
        "blocks.1.conv1.weight": (21, 14, 3, 3),
        "blocks.1.conv2.weight": (28, 21, 3, 3),
        "blocks.1.shortcut.conv.weight": (28, 14, 1, 1),
        "blocks.2.conv1.weight": (35, 28, 3, 3),
        "blocks.2.conv2.weight": (28, 35, 3, 3),
        "head.weight": (10, 28),
    }
    norms = {name: shape for name, shape in shapes.items() if name.endswith("running_var")}
    assert norms["stem.norm.running_var"] == (14,)
    assert norms["blocks.1.shortcut.norm.running_var"] == (28,)


def test_pruning_counts_the_share_of_all_channels(state: State) -> None:
    assert prune.count_channels(state) == 160
    assert prune.count_channels(prune.prune_channels(state, SHARE)) == 112


def test_pruned_network_builds_itself_and_loads_strictly(state: State, images: Tensor) -> None:
    pruned = build_with(prune.prune_channels(state, SHARE))
    assert pruned(images).shape == (16, 10)


def test_pruning_leaves_its_input_unchanged(state: State) -> None:
    before = {name: tensor.clone() for name, tensor in state.items()}
    prune.prune_channels(state, SHARE)
    assert all(torch.equal(before[name], state[name]) for name in before)


def test_pruning_no_share_changes_nothing(state: State) -> None:
    pruned = prune.prune_channels(state, 0.0)
    assert pruned.keys() == state.keys()
    assert all(torch.equal(pruned[name], state[name]) for name in state)


# Written out by hand, so that a wrong group in prune.py cannot also be wrong here.
SUMS = [
    (20, ["stem.norm", "blocks.0.norm2"]),
    (20, ["blocks.0.norm1"]),
    (30, ["blocks.1.norm1"]),
    (40, ["blocks.1.norm2", "blocks.1.shortcut.norm", "blocks.2.norm2"]),
    (50, ["blocks.2.norm1"]),
]


def kill_channels(state: State) -> None:
    """Silence a random 30 % of each group: a norm without scale and shift puts out 0."""
    generator = torch.Generator().manual_seed(5)
    for width, norms in SUMS:
        dead = torch.randperm(width, generator=generator)[: round(SHARE * width)]
        for norm in norms:
            state[f"{norm}.weight"][dead] = 0
            state[f"{norm}.bias"][dead] = 0


def test_removing_dead_channels_preserves_the_outputs(state: State, images: Tensor) -> None:
    kill_channels(state)
    pruned = prune.prune_channels(state, SHARE)
    assert prune.count_channels(pruned) == 112
    with torch.no_grad():
        before, after = build_with(state)(images), build_with(pruned)(images)
    worst = (before - after).abs().max()
    # The same float32 products summed in another order; logits are of order 1.
    assert worst <= 1e-5, f"worst difference {worst}"
    assert before.std() > 0.01, "outputs that are all alike would prove nothing"


def test_removing_live_channels_changes_the_outputs(state: State, images: Tensor) -> None:
    with torch.no_grad():
        before = build_with(state)(images)
        after = build_with(prune.prune_channels(state, SHARE))(images)
    assert (before - after).abs().max() > 1e-2


def test_one_channel_always_stays(state: State) -> None:
    group = next(prune.channel_groups(state))
    assert len(prune.kept_channels(state, group, 0.999)) == 1


def test_build_takes_the_widths_of_an_unpruned_checkpoint(state: State) -> None:
    network = model.build(shapes_of(state))
    assert shapes_of(network.state_dict()) == shapes_of(state)
    assert network.blocks[1].conv1.stride == (2, 2)
    assert network.blocks[2].conv1.stride == (1, 1)


def softmax(logits: Floats) -> Floats:
    powers: Floats = np.exp(logits)
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (4.0, 0.7), (2.5, 0.0)])
def test_distillation_loss_is_that_of_the_paper(temperature: float, alpha: float) -> None:
    generator = np.random.default_rng(6)
    student, teacher = generator.normal(0, 3, (2, 7, 10))
    labels = generator.integers(0, 10, 7)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    entropy = -np.log(softmax(student)[np.arange(7), labels]).mean()
    expected = alpha * temperature**2 * divergence + (1 - alpha) * entropy

    loss = distill.distillation_loss(
        torch.from_numpy(student),
        torch.from_numpy(teacher),
        torch.from_numpy(labels),
        temperature=temperature,
        alpha=alpha,
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)  # both in float64


def test_distillation_loss_of_the_teacher_itself_is_zero() -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(7))
    labels = torch.zeros(5, dtype=torch.int64)
    loss = distill.distillation_loss(logits, logits, labels, temperature=4.0, alpha=1.0)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_splits_hold_each_scan_once_and_all_classes_alike() -> None:
    splits = digits.split_digits(20)
    assert {name: len(images) for name, (images, _) in splits.items()} == {
        "train": 1001,
        "calib": 256,
        "test": 540,
    }
    scans = np.concatenate([images.reshape(-1, 64) for images, _ in splits.values()])
    assert len(np.unique(scans, axis=0)) == 1797
    for _, labels in splits.values():
        counts = np.bincount(labels, minlength=10)
        assert counts.min() > 0.9 * counts.max(), counts


def test_folders_give_back_what_was_written(tmp_path: Path) -> None:
    images, labels = digits.split_digits(20)["test"]
    digits.write_folders(tmp_path, images[:40], labels[:40])
    read, read_labels = digits.read_folders(tmp_path)
    order = np.argsort(labels[:40], kind="stable")
    assert read.shape == (40, 1, 8, 8)
    assert read_labels.tolist() == labels[:40][order].tolist()
    pixels = (read.numpy()[:, 0] * digits.STD + digits.MEAN) * 255
    assert np.array_equal(np.round(pixels), images[:40][order])


def test_project_file_preprocesses_as_the_training_did() -> None:
    project = tomllib.loads((EXAMPLE / "edgeship.toml").read_text(encoding="utf-8"))
    preprocess = project["model"]["inputs"]["image"]["preprocess"]
    assert (preprocess["mean"], preprocess["std"]) == ([digits.MEAN], [digits.STD])
    pixels = digits.split_digits(20)["train"][0] / 255
    assert pixels.mean() == pytest.approx(digits.MEAN, abs=1e-4)
    assert pixels.std() == pytest.approx(digits.STD, abs=1e-4)
