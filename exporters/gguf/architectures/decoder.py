"""Decoder: what llama, qwen2, qwen3 and deci share, and the table of how they differ.

Source: conversion/base.py of llama.cpp, `TextModel.set_gguf_parameters`, for the keys and their
order; gguf/tensor_mapping.py for the names; src/models/<architecture>.cpp for what is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgeship.exporters.gguf.architectures.inventory import Need, need
from edgeship.exporters.gguf.architectures.rope import Rope
from edgeship.exporters.gguf.architectures.widths import Widths
from edgeship.exporters.gguf.blueprint import (
    MetadataValue,
    ValueType,
    array,
    boolean,
    float32,
    uint32,
)

ATTENTION_BIASES: Final = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How one architecture of the file differs from the others.

    Attributes:
        architecture: Its name in the file.
        biases: Modules of a layer that may have a bias, by their names in the file.
        permutes: Whether rows of q and k are interleaved within each head.
        normalises_heads: Whether q and k are normalised per head.
        stores_vocabulary: Whether it stores the vocabulary's size and the rotary width.
        stores_pooling: Whether it stores how an embedding is pooled.
        stores_head_dim: Whether it stores the width of a head though `config.json` has none.
        takes_any_heads: Whether all heads together may be wider or narrower than the model.
        rope_kinds: Rotary scalings that it computes.
        context: `max_position_embeddings` where `config.json` leaves it out; this and the next
            two are the defaults of transformers' configuration class.
        epsilon: `rms_norm_eps`.
        head_dim: `head_dim`; None where it follows from the number of heads.
        sliding_window: `sliding_window`; None where the class has none.
    """

    architecture: str
    biases: tuple[str, ...]
    permutes: bool
    normalises_heads: bool = False
    stores_vocabulary: bool = False
    stores_pooling: bool = False
    stores_head_dim: bool = True
    takes_any_heads: bool = True
    rope_kinds: tuple[str, ...]
    context: int
    epsilon: float
    head_dim: int | None = None
    sliding_window: int | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """What `config.json` says of a decoder beside its widths.

    Attributes:
        epsilon: Of the RMS normalisations.
        ties_embeddings: Whether the head is the token embedding.
        attends_back: False of decoders that were trained to see the whole text.
        names_head_dim: Whether `config.json` has the width of a head.
        pooling: Number of the pooling type, where the directory is that of an embedding model.
    """

    layers: int
    hidden: int
    vocabulary: int
    context: int
    epsilon: float
    rope: Rope
    ties_embeddings: bool
    attends_back: bool
    names_head_dim: bool
    sliding_window: int | None
    pooling: int | None


def decoder_metadata(
    decoder: Decoder, sizes: DecoderSizes, widths: Widths
) -> Iterator[tuple[str, MetadataValue]]:
    """The architecture's keys in the converter's order; arrays where layers are not alike."""
    name = decoder.architecture
    yield f"{name}.block_count", uint32(sizes.layers)
    yield f"{name}.context_length", uint32(sizes.context)
    yield f"{name}.embedding_length", uint32(sizes.hidden)
    yield f"{name}.feed_forward_length", _per_layer(widths.ffn, widths)
    yield f"{name}.attention.head_count", _per_layer(widths.heads, widths)
    yield f"{name}.attention.head_count_kv", _per_layer(widths.kv_heads, widths)
    if not sizes.attends_back:
        yield f"{name}.attention.causal", boolean(False)
    yield from sizes.rope.metadata(name)
    yield f"{name}.attention.layer_norm_rms_epsilon", float32(sizes.epsilon)
    if decoder.stores_head_dim or sizes.names_head_dim or widths.corrections:
        yield f"{name}.attention.key_length", uint32(widths.head_dim)
        yield f"{name}.attention.value_length", uint32(widths.head_dim)
    if decoder.stores_vocabulary:
        yield f"{name}.vocab_size", uint32(sizes.vocabulary)
        yield f"{name}.rope.dimension_count", uint32(widths.head_dim)
    if decoder.stores_pooling and sizes.pooling is not None:
        yield f"{name}.pooling_type", uint32(sizes.pooling)


def decoder_needs(
    decoder: Decoder, sizes: DecoderSizes, widths: Widths, prefix: str
) -> Iterator[Need]:
    """Every tensor; `prefix` stands before the names of all but the head."""
    yield need("token_embd.weight", f"{prefix}embed_tokens.weight", sizes.vocabulary, sizes.hidden)
    yield need("output_norm.weight", f"{prefix}norm.weight", sizes.hidden)
    if not sizes.ties_embeddings:
        yield need("output.weight", "lm_head.weight", sizes.vocabulary, sizes.hidden)
    for layer in range(sizes.layers):
        yield from _layer_needs(decoder, sizes.hidden, widths, prefix, layer)


def _layer_needs(
    decoder: Decoder, hidden: int, widths: Widths, prefix: str, layer: int
) -> Iterator[Need]:
    block, source = f"blk.{layer}", f"{prefix}layers.{layer}"
    heads, kv_heads, ffn = widths.heads[layer], widths.kv_heads[layer], widths.ffn[layer]
    query, keys = heads * widths.head_dim, kv_heads * widths.head_dim
    if heads:
        yield need(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", hidden)
        attention = f"{source}.self_attn"
        yield from _linear(decoder, block, "attn_q", f"{attention}.q_proj", query, hidden, heads)
        yield from _linear(decoder, block, "attn_k", f"{attention}.k_proj", keys, hidden, kv_heads)
        yield from _linear(decoder, block, "attn_v", f"{attention}.v_proj", keys, hidden)
        yield from _linear(decoder, block, "attn_output", f"{attention}.o_proj", hidden, query)
        if decoder.normalises_heads:
            for side in "qk":
                name = f"{block}.attn_{side}_norm.weight"
                yield need(name, f"{attention}.{side}_norm.weight", widths.head_dim)
    yield need(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", hidden)
    yield from _linear(decoder, block, "ffn_gate", f"{source}.mlp.gate_proj", ffn, hidden)
    yield from _linear(decoder, block, "ffn_up", f"{source}.mlp.up_proj", ffn, hidden)
    yield from _linear(decoder, block, "ffn_down", f"{source}.mlp.down_proj", hidden, ffn)


def _linear(
    decoder: Decoder,
    block: str,
    module: str,
    source: str,
    rows: int,
    columns: int,
    rotated_heads: int | None = None,
) -> Iterator[Need]:
    heads = rotated_heads if decoder.permutes else None
    name = f"{block}.{module}"
    yield need(f"{name}.weight", f"{source}.weight", rows, columns, permuted_heads=heads)
    if module in decoder.biases:
        bias = f"{source}.bias"
        yield need(f"{name}.bias", bias, rows, permuted_heads=heads, is_optional=True)


def _per_layer(values: tuple[int, ...], widths: Widths) -> MetadataValue:
    return uint32(values[0]) if widths.is_uniform else array(ValueType.INT32, values)
