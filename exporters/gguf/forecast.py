"""Forecast: the memory that llama.cpp will ask for on the board, at a stated context length.

Weights and cache are counted exactly. The compute buffer is where ggml's allocator puts every
activation of one batch; its peak is in one of three stages, each of which is told here by the
tensors that live in it at once. Against what llama.cpp 0.5.0 reported, that buffer was
forecast between 3 % too small and 12 % too large in 36 contexts of six published shapes from 135 M
to 1.5 B, and between 20 % too small and 34 % too large in 1040 contexts of random small models,
nine tenths of them between 6 % too small and 13 % too large (measured). A model of 1.1 B in 4 bits
has ten times as many bytes of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.quantities import text_from_bytes

if TYPE_CHECKING:
    from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
    from edgeship.exporters.gguf.kinds import Kind

BATCH: Final = 512
"""Tokens that llama.cpp computes at once unless it is told otherwise: `n_ubatch`."""
_CONTEXT_STEP: Final = 256
"""The cache has a multiple of so many cells. Source: src/llama-context.cpp, `GGML_PAD(n_ctx`."""
_FLOAT: Final = 4
_HALF: Final = 2
_INPUTS: Final = 28
"""Bytes per token for ids, positions, cache indices and outputs: three int32 and two int64."""


@dataclass(frozen=True, kw_only=True)
class MemoryForecast:
    """Bytes that llama.cpp allocates or maps; the process around it is not in them.

    Attributes:
        context: Tokens that it is for.
        weights: The tensors. Where the CPU has repacked kernels they are copied when they are
            loaded, and the pages of the file can be dropped again.
        cache: Keys and values of all layers, float16.
        compute: Activations of one batch.
        output: Logits of one token; of an encoder also one embedding.
    """

    context: int
    weights: int
    cache: int
    compute: int
    output: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.cache + self.compute + self.output


def forecast_memory(
    tensors: Iterable[TensorPlan],
    kinds: Mapping[str, Kind],
    facts: ModelFacts,
    *,
    context: int,
    batch: int = BATCH,
    has_flash_attention: bool = True,
) -> MemoryForecast:
    """What serving one sequence takes.

    Args:
        tensors: Of the file.
        kinds: By tensor.
        facts: Of the model; layers may differ in width.
        context: Tokens that fit into the cache, or the longest text of an encoder.
        batch: Tokens computed at once.
        has_flash_attention: As llama.cpp chooses by itself; without, the scores of all heads are
            in memory at once. The class `Llama` of llama-cpp-python switches it off by default.
    """
    tokens = min(batch, context) if facts.is_causal else context
    cells = -(-context // _CONTEXT_STEP) * _CONTEXT_STEP
    batch_shape = _Batch(tokens, cells if facts.is_causal else context, has_flash_attention)
    return MemoryForecast(
        context=context,
        weights=sum(
            tensor.elements // tensor.columns * kinds[tensor.name].row_bytes(tensor.columns)
            for tensor in tensors
        ),
        cache=_cache_bytes(facts, batch_shape) if facts.is_causal else 0,
        compute=_compute_bytes(facts, batch_shape),
        output=_FLOAT * (facts.vocabulary + (0 if facts.is_causal else facts.hidden)),
    )


def memory_note(forecast: MemoryForecast, board_bytes: int) -> str:
    """A line that adds up the parts and compares them with the board's memory."""
    parts = (
        f"{text_from_bytes(forecast.weights)} weights",
        *([f"{text_from_bytes(forecast.cache)} KV cache"] if forecast.cache else []),
        f"{text_from_bytes(forecast.compute + forecast.output)} buffers",
    )
    verdict = "of" if forecast.total <= board_bytes else "which is more than"
    return (
        f"memory at {forecast.context} tokens: {' + '.join(parts)} = "
        f"{text_from_bytes(forecast.total)}, {verdict} {text_from_bytes(board_bytes)} "
        "(forecast, without the process around it)"
    )


@dataclass(frozen=True)
class _Batch:
    """Tokens computed at once, and how many they look at."""

    tokens: int
    cells: int
    has_flash_attention: bool


def _cache_bytes(facts: ModelFacts, batch: _Batch) -> int:
    """Without flash attention all layers have values of the widest one.

    Source: src/llama-kv-cache.cpp, `v_trans` and `n_embd_v_gqa_max`.
    """
    keys = sum(facts.kv_heads)
    values = keys if batch.has_flash_attention else facts.layers * max(facts.kv_heads)
    return _HALF * batch.cells * (keys + values) * facts.head_dim


def _compute_bytes(facts: ModelFacts, batch: _Batch) -> int:
    """The largest stage; the mask of the attention lives through all but the last."""
    mask = batch.tokens * batch.cells * (_HALF if batch.has_flash_attention else _FLOAT)
    inputs = _INPUTS * batch.tokens
    layers = max(
        max(_attention_bytes(facts, batch, layer), _feed_forward_bytes(facts, batch, layer))
        for layer in range(facts.layers)
    )
    logits = _FLOAT * batch.tokens * (facts.vocabulary + 4 * facts.hidden)
    return inputs + max(mask + layers, logits if facts.is_causal else 0)


def _attention_bytes(facts: ModelFacts, batch: _Batch, layer: int) -> int:
    """Residual, norm, queries (again after the positions, and summed values), keys and values."""
    heads, keys = facts.heads[layer], facts.kv_heads[layer] * facts.head_dim
    scores = 0 if batch.has_flash_attention else heads * batch.cells
    if facts.is_causal:
        copies = 2 if batch.has_flash_attention else 3
        widths = 2 * facts.hidden + copies * heads * facts.head_dim + 2 * keys
    else:
        widths = 6 * facts.hidden
    return _FLOAT * batch.tokens * (widths + scores)


def _feed_forward_bytes(facts: ModelFacts, batch: _Batch, layer: int) -> int:
    """Residual, norm and the holes that the attention leaves; gate, up and their product."""
    if facts.is_causal:
        widths = 4 * facts.hidden + 3 * facts.ffn[layer]
    else:
        widths = 3 * facts.hidden + facts.ffn[layer]
    return _FLOAT * batch.tokens * widths
