"""Small encoders with random weights: norms after sums or before them, and RMS norms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeship.calibration.equalize.program import FloatProgram, float_program
from edgeship.calibration.equalize.rewrite import Use
from edgeship.contract import Contract, TensorSpec
from edgeship.source.model import Model
from edgeship.targets import load_target
from edgeship.vocabulary import Format

TOKENS = 7
WORDS = 19


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, *, is_written_out: bool = True) -> None:
        super().__init__()
        self.heads, self.is_written_out = heads, is_written_out
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.is_written_out:
            scores = q @ k.transpose(-1, -2) / (q.shape[-1] ** 0.5) + mask
            mixed = F.dropout(scores.softmax(-1), 0.1, training=self.training) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return result


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, norm: type[nn.Module], *, is_post: bool) -> None:
        super().__init__()
        self.is_post = is_post
        self.attention = Attention(width, heads, is_written_out=is_post)
        self.norm_1, self.norm_2 = norm(width), norm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        before = (nn.Identity(), nn.Identity()) if self.is_post else (self.norm_1, self.norm_2)
        after = (self.norm_1, self.norm_2) if self.is_post else (nn.Identity(), nn.Identity())
        x = after[0](x + self.attention(before[0](x), mask))
        result: Tensor = after[1](x + self.feed(before[1](x)))
        return result


class WrittenRms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x


class Encoder(nn.Module):
    """Words and places, layers, and the mean of the tokens that are not padding."""

    def __init__(
        self,
        width: int = 48,
        heads: int = 4,
        *,
        norm: type[nn.Module] = nn.LayerNorm,
        is_post: bool = True,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = nn.Parameter(torch.randn(TOKENS, width))
        self.first = norm(width) if is_post else nn.Identity()
        self.layers = nn.ModuleList(
            Layer(width, heads, norm, is_post=is_post) for _ in range(layers)
        )
        self.last = nn.Identity() if is_post else norm(width)

    def forward(self, ids: Tensor, kept: Tensor) -> Tensor:
        x = self.first(self.words(ids) + self.places)
        mask = (1 - kept.float())[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        weights = kept.unsqueeze(-1).float()
        mean: Tensor = (self.last(x) * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return mean


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """With other gains and shifts than ones and zeros, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 0.3 if parameter.dim() == 1 else 0.1
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(requires_grad=False)


def long_first() -> nn.Module:
    """An encoder whose feed-forward answers the first place with a vector 20 times as long."""
    module = Encoder()
    randomized(module)
    layer = module.layers[0]
    assert isinstance(layer, Layer)
    mark = torch.zeros(48)
    mark[3], mark[7] = 40.0, -40.0  # no other token lies that way
    module.places[0] += mark
    rise, _, fall = layer.feed
    assert isinstance(rise, nn.Linear)
    assert isinstance(fall, nn.Linear)
    rise.weight[0] = 0.5 * mark
    fall.weight[:, 0] = torch.linspace(-2, 2, 48)
    return module


def model_of(module: nn.Module) -> Model:
    inputs = tuple(
        TensorSpec(name=name, shape=(1, TOKENS), dtype="int64") for name in ("ids", "kept")
    )
    result = module(*(torch.ones(1, TOKENS, dtype=torch.int64) for _ in inputs))
    outputs = (TensorSpec(name="mean", shape=tuple(result.shape), dtype="float32"),)
    return Model(module=module, contract=Contract(inputs=inputs, outputs=outputs))


def program_of(module: nn.Module) -> FloatProgram:
    return float_program(model_of(module))


def texts(count: int = 3, seed: int = 0) -> Sequence[dict[str, np.ndarray]]:
    """Ids, padded behind 4 tokens or more."""
    random = np.random.default_rng(seed)
    return [
        {
            "ids": random.integers(0, WORDS, (1, TOKENS)),
            "kept": (np.arange(TOKENS) < random.integers(4, TOKENS + 1)).astype(np.int64)[None],
        }
        for _ in range(count)
    ]


def use_of(format_: Format = Format.TFLITE) -> Use:
    return Use(format=format_, target=load_target("raspberry-pi-4"), is_symmetric=False)
