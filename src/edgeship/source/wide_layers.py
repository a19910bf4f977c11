"""Wide layers: weights stay in their stored type, arithmetic is float32.

Widening bfloat16 or float16 is exact, so that the numbers are those of a float32 copy, which would
take twice the memory.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCK_BYTES: Final = 64 << 20
"""A choice: of a weight that is float32 at a time."""


class WideLinear(nn.Linear):
    """`nn.Linear`, widened a block of rows at a time."""

    def forward(self, input: Tensor) -> Tensor:
        """float32[..., out] of float32[..., in]."""
        bias: Tensor | None = self.bias
        if self.weight.dtype is torch.float32:
            return functional.linear(input, self.weight, bias)
        rows = max(1, _BLOCK_BYTES // (4 * self.in_features))
        if rows >= self.out_features:
            return functional.linear(input, self.weight.float(), bias)
        output = input.new_empty(*input.shape[:-1], self.out_features)
        for start in range(0, self.out_features, rows):
            block = self.weight[start : start + rows].float()
            output[..., start : start + rows] = functional.linear(input, block)
        return output if bias is None else output + bias


class WideEmbedding(nn.Embedding):
    """`nn.Embedding` whose rows are widened as they are looked up."""

    def forward(self, input: Tensor) -> Tensor:
        """float32[..., width] of integers."""
        return super().forward(input).float()


class NoAttention(nn.Module):
    """In place of an attention that was removed: adds nothing."""

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:  # noqa: ANN401 - transformers'
        """Zeros, and no attention weights."""
        return torch.zeros_like(hidden_states), None


class NoFeedForward(nn.Module):
    """In place of a feed-forward part that was removed: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(hidden_states)
