"""ResNet-20 for CIFAR, the float model of the benchmarks; copied into the project that they build.

He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2, with the
parameter-free shortcuts that the paper calls option A.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS: Final = (16, 32, 64)
BLOCKS: Final = 3
CLASSES: Final = 10


class PaddedShortcut(nn.Module):
    """Every second pixel, and as many zero channels again, half on each side."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.padding = planes // 4

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, 2C, H/2, W/2]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 else PaddedShortcut(planes)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, planes, H/stride, W/stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three stages, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.linear = nn.Linear(WIDTHS[2], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, 3, 32, 32] to logits float32[N, 10]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size(3)).flatten(1)
        logits: Tensor = self.linear(out)
        return logits


def stage(in_planes: int, planes: int, *, stride: int) -> nn.Sequential:
    rest = [BasicBlock(planes, planes, 1) for _ in range(BLOCKS - 1)]
    return nn.Sequential(BasicBlock(in_planes, planes, stride), *rest)


def build() -> ResNet:
    return ResNet()
