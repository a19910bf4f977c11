"""A small MobileNetV3; copied into the project that the benchmark `hard_swish.py` builds.

The blocks are those of MobileNetV3-Small (arXiv:1905.02244, table 2), for images of 64 x 64; what
follows the last convolution is one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS: Final = (
    (3, 16, 16, True, F.relu, 2),
    (3, 72, 24, False, F.relu, 2),
    (3, 88, 24, False, F.relu, 1),
    (5, 96, 40, True, F.hardswish, 2),
    (5, 240, 40, True, F.hardswish, 1),
    (5, 240, 40, True, F.hardswish, 1),
    (5, 120, 48, True, F.hardswish, 1),
    (5, 144, 48, True, F.hardswish, 1),
    (5, 288, 96, True, F.hardswish, 2),
    (5, 576, 96, True, F.hardswish, 1),
    (5, 576, 96, True, F.hardswish, 1),
)
"""Kernel, inner and output channels, squeeze and excitation or not, activation, stride."""
_STEM: Final = 16
_LAST: Final = 576


class Layer(nn.Module):
    """Convolution, BatchNorm and, unless it is None, an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        activation: Callable[[Tensor], Tensor] | None,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, outputs, H/stride, W/stride]."""
        x = self.bn(self.conv(x))
        return x if self.activation is None else self.activation(x)


class Excitation(nn.Module):
    """Squeeze and excitation with a hard sigmoid (section 5.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W], each channel times 0..1."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(pooled))))


class Block(nn.Module):
    """Expansion, depthwise convolution, excitation and projection, beside the input."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        inner: int,
        outputs: int,
        is_excited: bool,
        activation: Callable[[Tensor], Tensor],
        stride: int,
    ) -> None:
        super().__init__()
        self.expand = Layer(inputs, inner, 1, activation)
        self.depthwise = Layer(inner, inner, kernel, activation, stride, groups=inner)
        self.excite = Excitation(inner) if is_excited else nn.Identity()
        self.project = Layer(inner, outputs, 1, None)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to float32[N, outputs, H/stride, W/stride]."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.is_residual else y


class SwishNet(nn.Module):
    """Stem, the blocks, a last convolution and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Layer(3, _STEM, 3, F.hardswish, 2)
        blocks, channels = [], _STEM
        for kernel, inner, outputs, is_excited, activation, stride in BLOCKS:
            blocks.append(Block(channels, kernel, inner, outputs, is_excited, activation, stride))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = Layer(channels, _LAST, 1, F.hardswish)
        self.linear = nn.Linear(_LAST, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, 3, 64, 64] to logits float32[N, 10]."""
        x = self.last(self.blocks(self.stem(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def build() -> SwishNet:
    return SwishNet()
