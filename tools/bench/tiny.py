"""Two nets of the size of MLPerf Tiny's; copied into the projects that the benchmark builds.

Their shapes are those of the reference models of image classification and visual wake words
(mlcommons/tiny, benchmark/training), but for the padding of strided convolutions, which is torch's:
the same on both sides.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

RESNET_WIDTHS: Final = (16, 32, 64)
MOBILENET_BLOCKS: Final = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    *[(128, 1)] * 5,
    (256, 2),
    (256, 1),
)
"""Output channels and stride of each pair of depthwise and pointwise convolution: MobileNetV1
(arXiv:1704.04861, table 1) at a width of 0.25."""


class Stack(nn.Module):
    """Two 3x3 convolutions; where the size changes, a 1x1 convolution beside them."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(in_planes, planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, planes, H/stride, W/stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet8(nn.Module):
    """Stem, three stacks, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        narrow, middle, wide = RESNET_WIDTHS
        self.conv = nn.Conv2d(3, narrow, 3, 1, 1)
        self.bn = nn.BatchNorm2d(narrow)
        self.stack1 = Stack(narrow, narrow, 1)
        self.stack2 = Stack(narrow, middle, 2)
        self.stack3 = Stack(middle, wide, 2)
        self.linear = nn.Linear(wide, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, 3, 32, 32] to logits float32[N, 10]."""
        out = F.relu(self.bn(self.conv(x)))
        out = self.stack3(self.stack2(self.stack1(out)))
        logits: Tensor = self.linear(F.avg_pool2d(out, 8).flatten(1))
        return logits


class Pair(nn.Module):
    """A depthwise 3x3 and a pointwise convolution."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_planes, in_planes, 3, stride, 1, groups=in_planes, bias=False)
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.pointwise = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, planes, H/stride, W/stride]."""
        out = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(out)))


class MobileNet(nn.Module):
    """MobileNetV1 at a width of 0.25, for images of 96 x 96 and two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        planes = [8, *(width for width, _ in MOBILENET_BLOCKS)]
        self.pairs = nn.Sequential(
            *(
                Pair(before, width, stride)
                for before, (width, stride) in zip(planes, MOBILENET_BLOCKS, strict=False)
            )
        )
        self.linear = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, 3, 96, 96] to logits float32[N, 2]."""
        out = self.pairs(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.linear(F.avg_pool2d(out, 3).flatten(1))
        return logits


def build_resnet8() -> ResNet8:
    return ResNet8()


def build_mobilenet() -> MobileNet:
    return MobileNet()
