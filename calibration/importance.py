"""Importance: how much each input channel of each weight matters, by the text that goes through it.

For every linear layer the squares of what enters it are summed over the tokens of representative
text. Rounding a weight costs its square error times that sum, so that the quantizer spends its
accuracy where the sum is large: llama.cpp calls the table an importance matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeship.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

_BLOCK: Final = "blk."
"""llama-imatrix takes no others: the output layer is quantized with more bits, without a table."""
_ARCHITECTURES: Final[Mapping[str, str]] = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "bert": "BERT",
}
"""Member of gguf.MODEL_ARCH by the model_type of config.json; names of blocks are those of deci."""


@dataclass(frozen=True, kw_only=True)
class ChannelSums:
    """What went into one weight.

    Attributes:
        squares: float64[channels], sums of squares.
        tokens: Over which they run, >= 1.
    """

    squares: np.ndarray
    tokens: int

    def means(self) -> np.ndarray:
        """float32[channels] as llama-quantize has them: a float32 sum by a float32 count."""
        means: np.ndarray = self.squares.astype(np.float32) / np.float32(self.tokens)
        return means

    @property
    def dead(self) -> int:
        """Channels in which nothing but zero was seen."""
        return int((self.squares == 0).sum())


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The table.

    Attributes:
        entries: By the tensor's name in the GGUF file, such as `blk.0.attn_q.weight`. A weight that
            nothing but zeros went into has none: such a table would say nothing.
        dataset: Where the text is from.
        chunks: Sequences of text that were run.
        chunk_tokens: Tokens of the longest.
    """

    entries: Mapping[str, ChannelSums]
    dataset: str
    chunks: int
    chunk_tokens: int

    def notes(self) -> list[str]:
        """What people should know of the table, a sentence each."""
        dead = {name: sums.dead for name, sums in self.entries.items() if sums.dead}
        if not dead:
            return []
        worst = max(dead, key=lambda name: dead[name])
        return [
            f"{sum(dead.values())} input channels of {len(dead)} weights saw nothing but zeros, "
            f"most of them {worst} with {dead[worst]} of {len(self.entries[worst].squares)}"
        ]


def observe_importance(
    model: nn.Module,
    chunks: Sequence[Sequence[int]],
    *,
    dataset: str,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Importance:
    """Run sequences of token ids through a model of transformers; memory is one sequence.

    Args:
        model: PreTrainedModel in evaluation mode, a decoder or an encoder; its head is not run.
        chunks: Token ids, special ones included; at least one.
        dataset: Where they are from, for the file.
        on_progress: Told (done, all) after each sequence.

    Raises:
        ConfigurationError: NaN or infinity in a layer, another architecture, no layer at all.
    """
    import torch

    body: Any = model.base_model
    sums = {name: _Sums(path) for name, path in gguf_names(body).items() if name.startswith(_BLOCK)}
    with ExitStack() as stack, torch.no_grad():
        for item in sums.values():
            hook = body.get_submodule(item.path).register_forward_pre_hook(item.add)
            stack.callback(hook.remove)
        for index, chunk in enumerate(chunks):
            body(input_ids=torch.tensor([list(chunk)]))
            on_progress(index + 1, len(chunks))
    entries = {name: item.channel_sums() for name, item in sums.items()}
    return Importance(
        entries={name: found for name, found in entries.items() if found is not None},
        dataset=dataset,
        chunks=len(chunks),
        chunk_tokens=max(len(chunk) for chunk in chunks),
    )


def gguf_names(body: nn.Module) -> dict[str, str]:
    """Module path by the GGUF name of its weight, for every linear layer that has one.

    Args:
        body: Model of transformers without its head.

    Raises:
        ConfigurationError: An architecture whose names are not known.
    """
    import gguf
    from torch import nn

    config: Any = body.config
    member = _ARCHITECTURES.get(config.model_type)
    if member is None:
        problem = Problem(
            where=str(config.model_type),
            what="the names of its layers in GGUF are not known",
            expected=", ".join(_ARCHITECTURES),
            remedy="build without an importance matrix, or name a file of llama-imatrix",
        )
        raise ConfigurationError(problem)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[member], config.num_hidden_layers)
    found = {}
    for path, module in body.named_modules():
        if isinstance(module, nn.Linear):
            stored = path if member == "BERT" else f"model.{path}"
            name = names.get_name(f"{stored}.weight", try_suffixes=(".weight",))
            if name is not None:
                found[name] = path
    return found


class _Sums:
    """Sums of one layer, as a hook."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._squares: np.ndarray | None = None
        self._tokens = 0

    def add(self, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].reshape(-1, arguments[0].shape[-1]).numpy()
        squares = np.einsum("tc,tc->c", rows, rows, dtype=np.float64)
        if not np.isfinite(squares).all():
            problem = Problem(
                where=self.path,
                what="the float model gives this layer NaN or infinity",
                found=f"{int((~np.isfinite(squares)).sum())} of {squares.size} channels",
                remedy="mend the checkpoint: some weight before this layer is broken",
            )
            raise ConfigurationError(problem)
        self._squares = squares if self._squares is None else self._squares + squares
        self._tokens += len(rows)

    def channel_sums(self) -> ChannelSums | None:
        """None where the layer was not reached, or saw nothing but zeros."""
        if self._squares is None or not self._squares.any():
            return None
        return ChannelSums(squares=self._squares, tokens=self._tokens)
