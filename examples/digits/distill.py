"""Training: alone on the labels, or as the student of a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

TEMPERATURE: Final = 4.0
ALPHA: Final = 0.7
_BATCH: Final = 64

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss of the logits float32[N, classes] of the samples with these numbers, int64[N]."""


def loss_from_labels(labels: Tensor) -> Loss:
    """Cross entropy with the labels, mean over the batch."""
    return lambda logits, chosen: functional.cross_entropy(logits, labels[chosen])


def loss_from_teacher(teacher: nn.Module, images: Tensor, labels: Tensor) -> Loss:
    """The distillation loss; a teacher in evaluation mode is asked here, once for each image."""
    with torch.no_grad():
        taught = teacher(images)
    return lambda logits, chosen: distillation_loss(
        logits, taught[chosen], labels[chosen], temperature=TEMPERATURE, alpha=ALPHA
    )


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float, alpha: float
) -> Tensor:
    """`alpha * T^2 * KL(softmax(teacher / T), softmax(student / T)) + (1 - alpha) * CE`.

    Logits are float32[N, classes]; both terms are means over the batch.
    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015,
    arXiv:1503.02531, section 2; T^2 keeps the two gradients on one scale at any T.
    """
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(student, labels)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def train(model: nn.Module, images: Tensor, loss: Loss, *, epochs: int, rate: float) -> None:
    """Train in place with Adam, the rate falling to 0 as half a cosine; left in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    # Only whole batches: a last one of few samples would disturb the batch norm statistics.
    steps = len(images) // _BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)
    model.train()
    for _ in range(epochs):
        shuffled = torch.randperm(len(images))[: steps * _BATCH]
        for chosen in shuffled.view(steps, _BATCH):
            optimizer.zero_grad()
            loss(model(images[chosen]), chosen).backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
            schedule.step()
    model.eval()


def correct_answers(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many images a model in evaluation mode puts into their class."""
    with torch.no_grad():
        return int((model(images).argmax(dim=1) == labels).sum())
