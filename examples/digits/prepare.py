"""Makes the checkpoint and the data that edgeship.toml names: train, distil, prune, fine-tune."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch
from digits import read_folders, split_digits, write_folders, write_labels
from distill import Loss, correct_answers, loss_from_labels, loss_from_teacher, train
from model import BlockWidths, DigitNet, build
from prune import count_channels, prune_channels
from safetensors.torch import save_file
from torch import Tensor

WORK: Final = Path(__file__).parent / "work"
SEED: Final = 20
THREADS: Final = 2
PRUNED_SHARE: Final = 0.3


def main() -> None:
    make_deterministic()
    write_data(WORK)
    images, labels = read_folders(WORK / "data" / "train")
    teacher = train_teacher(images, labels)
    loss = loss_from_teacher(teacher, images, labels)
    student = distil_student(images, loss)
    pruned = prune_student(student, images, loss)
    save_file(pruned.state_dict(), WORK / "student.safetensors")
    print_table({"teacher": teacher, "student": student, "pruned": pruned})


def make_deterministic() -> None:
    """Same machine, same bytes; another CPU may round sums differently."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)


def write_data(work: Path) -> None:
    """Write the splits and labels.txt anew."""
    shutil.rmtree(work, ignore_errors=True)
    for name, (images, labels) in split_digits(SEED).items():
        write_folders(work / "data" / name, images, labels)
    write_labels(work / "labels.txt")


def train_teacher(images: Tensor, labels: Tensor) -> DigitNet:
    """A wide network, trained on the labels alone."""
    teacher = DigitNet(stem=40, blocks=residual_widths(40, 80))
    train(teacher, images, loss_from_labels(labels), epochs=15, rate=2e-3)
    return teacher


def distil_student(images: Tensor, loss: Loss) -> DigitNet:
    """A narrow network, trained on what the teacher says and on the labels."""
    student = DigitNet(stem=20, blocks=residual_widths(20, 40))
    train(student, images, loss, epochs=20, rate=4e-3)
    return student


def prune_student(student: DigitNet, images: Tensor, loss: Loss) -> DigitNet:
    """A network without the student's weakest channels, fine-tuned with the same loss."""
    state = prune_channels(student.state_dict(), PRUNED_SHARE)
    pruned = build({name: tuple(tensor.shape) for name, tensor in state.items()})
    pruned.load_state_dict(state)
    train(pruned, images, loss, epochs=10, rate=2e-3)
    return pruned


def residual_widths(wide: int, deep: int) -> list[BlockWidths]:
    """One block at 8x8 with `wide` channels, two at 4x4 with `deep` channels."""
    return [
        BlockWidths(hidden=wide, out=wide, has_shortcut=False),
        BlockWidths(hidden=deep, out=deep, has_shortcut=True),
        BlockWidths(hidden=deep, out=deep, has_shortcut=False),
    ]


def print_table(models: dict[str, DigitNet]) -> None:
    """Print sizes, and accuracies on the test split, which no training saw."""
    images, labels = read_folders(WORK / "data" / "test")
    print("model    channels  parameters  test accuracy")
    for name, model in models.items():
        channels = count_channels(model.state_dict())
        parameters = sum(parameter.numel() for parameter in model.parameters())
        correct = correct_answers(model, images, labels)
        share = f"{correct / len(labels):.2%} ({correct} of {len(labels)})"
        print(f"{name:<8} {channels:>8}  {parameters:>10,}  {share}")


if __name__ == "__main__":
    main()
