"""Nets of three families with random weights, as float files: for what a quantizer does to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.exporters.tflite.flatbuffer import is_constant, operators, read_model, write_model

if TYPE_CHECKING:
    import numpy as np

SIZE: Final = 64
CLASSES: Final = 10


class Residual(nn.Module):
    """The block of ResNet-20 (arXiv:1512.03385, section 4.2), padded shortcut included."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride=stride)
        self.second = convolution(outputs, outputs, activation=nn.Identity)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(self.second(self.first(x)) + shortcut)


class Excitation(nn.Module):
    """Squeeze and excitation as in MobileNetV3 (arXiv:1905.02244, section 5.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(pooled))))


class Bottleneck(nn.Module):
    """Expansion, depthwise convolution, projection (arXiv:1801.04381, section 3.3)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        kernel: int = 3,
        activation: Callable[[], nn.Module] = nn.ReLU6,
        is_excited: bool = False,
    ) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.layers = nn.Sequential(
            convolution(inputs, hidden, kernel=1, activation=activation),
            convolution(
                hidden, hidden, kernel=kernel, stride=stride, groups=hidden, activation=activation
            ),
            Excitation(hidden) if is_excited else nn.Identity(),
            convolution(hidden, outputs, kernel=1, activation=nn.Identity),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.is_residual else y


class Head(nn.Module):
    """Mean over the image, and a linear classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((2, 3)))
        return y


def resnet() -> nn.Module:
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 32, 1), Residual(32, 64, 2)]
    return nn.Sequential(convolution(3, 16), *blocks, Head(64))


def mobilenet_v2() -> nn.Module:
    blocks = [
        Bottleneck(16, 24, stride=2),
        Bottleneck(24, 24, stride=1),
        Bottleneck(24, 40, stride=2),
        Bottleneck(40, 40, stride=1),
    ]
    stem = convolution(3, 16, stride=2, activation=nn.ReLU6)
    last = convolution(40, 96, kernel=1, activation=nn.ReLU6)
    return nn.Sequential(stem, *blocks, last, Head(96))


def mobilenet_v3() -> nn.Module:
    hard = nn.Hardswish
    blocks = [
        Bottleneck(16, 16, stride=2, activation=nn.ReLU, is_excited=True),
        Bottleneck(16, 24, stride=2, activation=nn.ReLU),
        Bottleneck(24, 40, stride=2, kernel=5, activation=hard, is_excited=True),
        Bottleneck(40, 40, stride=1, kernel=5, activation=hard, is_excited=True),
    ]
    stem = convolution(3, 16, stride=2, activation=hard)
    last = convolution(40, 96, kernel=1, activation=hard)
    return nn.Sequential(stem, *blocks, last, Head(96))


NETS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "resnet": resnet,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
}


def convolution(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    padding = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation())


def images(count: int, seed: int) -> np.ndarray:
    """Smooth noise of all contrasts: float32[count, SIZE, SIZE, 3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    fine = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    array: np.ndarray = (contrast * (smooth + fine)).permute(0, 2, 3, 1).contiguous().numpy()
    return array


def float_file(name: str, file: Path) -> bytes:
    """Convert the net, its BatchNorms calibrated on images, to a float file with unique names."""
    import litert_torch

    torch.manual_seed(0)
    net = NETS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    batch = torch.from_numpy(images(64, seed=1)).permute(0, 3, 1, 2)
    with torch.no_grad():
        net.train()(batch)
    channel_last = litert_torch.to_channel_last_io(net.eval(), args=[0]).eval()
    litert_torch.convert(channel_last, (torch.zeros(1, SIZE, SIZE, 3),)).export(str(file))
    return renamed(file.read_bytes())


def renamed(content: bytes) -> bytes:
    """Short unique names: of the tensors, by their numbers."""
    model = read_model(content)
    subgraph = model.subgraphs[0]
    for index, tensor in enumerate(subgraph.tensors):
        kind = "constant" if is_constant(model, tensor) else "activation"
        tensor.name = f"{kind}/{index}".encode()
    assert all(graph is subgraph for graph, _ in operators(model))
    return write_model(model)
