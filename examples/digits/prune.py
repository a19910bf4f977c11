"""Structured pruning of a DigitNet checkpoint: whole channels leave its tensors.

Source of the criterion: Liu et al., Learning Efficient Convolutional Networks through Network
Slimming, 2017, arXiv:1708.06519: channels with the smallest batch norm scales go first. Here each
group of channels loses the same share, so that no layer stays wide and none collapses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


class ChannelGroup(NamedTuple):
    """One set of channels that can only be kept or removed together.

    The terms of a residual sum share their channels: the stem and all blocks up to the next
    shortcut write one group. The hidden channels of a block are a group of their own.

    Attributes:
        writers: (convolution, norm) module names whose output channels these are.
        readers: Names of the layers whose input channels these are.
    """

    writers: tuple[tuple[str, str], ...]
    readers: tuple[str, ...]


def channel_groups(state: Mapping[str, Tensor]) -> Iterator[ChannelGroup]:
    """All groups of a checkpoint; each of its channels is in exactly one."""
    writers = [("stem.conv", "stem.norm")]
    readers: list[str] = []
    number = 0
    while (block := f"blocks.{number}") + ".conv1.weight" in state:
        yield ChannelGroup(((f"{block}.conv1", f"{block}.norm1"),), (f"{block}.conv2",))
        readers.append(f"{block}.conv1")
        shortcut = f"{block}.shortcut"
        if f"{shortcut}.conv.weight" in state:
            yield ChannelGroup(tuple(writers), (*readers, f"{shortcut}.conv"))
            writers, readers = [(f"{shortcut}.conv", f"{shortcut}.norm")], []
        writers.append((f"{block}.conv2", f"{block}.norm2"))
        number += 1
    yield ChannelGroup(tuple(writers), (*readers, "head"))


def prune_channels(state: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A smaller checkpoint without the weakest `share` of each group's channels.

    Args:
        state: Left unchanged.
        share: In [0, 1); the count is rounded to the nearest, and one channel always stays.
    """
    pruned = dict(state)
    for group in channel_groups(state):
        kept = kept_channels(state, group, share)
        for convolution, norm in group.writers:
            _select(pruned, [f"{convolution}.weight"], kept, axis=0)
            _select(pruned, [f"{norm}.{tensor}" for tensor in _NORM_TENSORS], kept, axis=0)
        _select(pruned, [f"{reader}.weight" for reader in group.readers], kept, axis=1)
    return pruned


def kept_channels(state: Mapping[str, Tensor], group: ChannelGroup, share: float) -> Tensor:
    """Ascending channel numbers, int64[kept], of the largest sums of |scale| over the writers."""
    scales = [state[f"{norm}.weight"].abs() for _, norm in group.writers]
    strength = torch.stack(scales).sum(dim=0)
    kept = max(1, len(strength) - round(share * len(strength)))
    strongest = torch.argsort(strength, descending=True, stable=True)[:kept]
    return strongest.sort().values


def count_channels(state: Mapping[str, Tensor]) -> int:
    """Channels of all groups together."""
    return sum(len(state[f"{group.writers[0][1]}.weight"]) for group in channel_groups(state))


def _select(state: dict[str, Tensor], names: Sequence[str], kept: Tensor, *, axis: int) -> None:
    for name in names:
        state[name] = state[name].index_select(axis, kept)
