"""A small residual network whose widths are those of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class BlockWidths(NamedTuple):
    """Channels of one residual block; `has_shortcut` also halves height and width."""

    hidden: int
    out: int
    has_shortcut: bool


def build(shapes: Mapping[str, tuple[int, ...]]) -> DigitNet:
    """An untrained network that takes a checkpoint with tensors of these shapes, strictly."""
    return DigitNet(
        stem=shapes["stem.conv.weight"][0],
        blocks=_block_widths(shapes),
        classes=shapes["head.weight"][0],
    )


def _block_widths(shapes: Mapping[str, tuple[int, ...]]) -> list[BlockWidths]:
    widths: list[BlockWidths] = []
    while (name := f"blocks.{len(widths)}") + ".conv1.weight" in shapes:
        widths.append(
            BlockWidths(
                hidden=shapes[f"{name}.conv1.weight"][0],
                out=shapes[f"{name}.conv2.weight"][0],
                has_shortcut=f"{name}.shortcut.conv.weight" in shapes,
            )
        )
    return widths


class DigitNet(nn.Module):
    """Stem, residual blocks, global average pooling, linear head: float32[1, 1, 8, 8] to logits."""

    def __init__(self, *, stem: int, blocks: Sequence[BlockWidths], classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, stem, kernel=3)
        streams = [stem, *(block.out for block in blocks)]
        self.blocks = nn.Sequential(
            *(Block(width, block) for width, block in zip(streams[:-1], blocks, strict=True))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(streams[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32[N, classes] of float32[N, 1, H, W]."""
        features = self.blocks(torch.relu(self.stem(image)))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, outputs, ceil(H / stride), ceil(W / stride)] of float32[N, inputs, H, W]."""
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class Block(nn.Module):
    """`relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))`."""

    def __init__(self, inputs: int, widths: BlockWidths) -> None:
        super().__init__()
        stride = 2 if widths.has_shortcut else 1
        self.conv1 = nn.Conv2d(inputs, widths.hidden, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(widths.hidden)
        self.conv2 = nn.Conv2d(widths.hidden, widths.out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(widths.out)
        self.shortcut: nn.Module = nn.Identity()
        if widths.has_shortcut:
            self.shortcut = ConvNorm(inputs, widths.out, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, out, H', W'] of float32[N, inputs, H, W]."""
        hidden = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))
