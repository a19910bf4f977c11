"""Blueprint: everything of a GGUF file but its vocabulary, its types and its weights.

Made from `config.json` and the headers of the weights alone, so it is there before anything slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

Scalar = str | bytes | bool | int | float


class ValueType(IntEnum):
    """Types of metadata values, by the numbers that stand in the file.

    Source: ggml/docs/gguf.md, `gguf_metadata_value_type`.
    """

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class MetadataValue:
    """A value with the type that it has in the file.

    Attributes:
        type: Of the value, ARRAY where `value` is a tuple.
        value: Text may be `bytes` where it need not be UTF-8: tokens.
        item: Type of the items of an ARRAY; None of all others.
    """

    type: ValueType
    value: Scalar | tuple[Scalar, ...]
    item: ValueType | None = None


Metadata = tuple[tuple[str, MetadataValue], ...]
"""Keys and values in the order of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlan:
    """A tensor of the file, and where its numbers come from.

    Attributes:
        name: In the file, such as `blk.0.attn_q.weight`.
        shape: Rows first, as numpy and the checkpoint have it; GGUF stores it reversed.
        source: Name in the checkpoint, where the shape is the same; empty if `values` is set.
        permuted_heads: Where set, the first axis (of a bias too) is that many heads of equal
            height, and the two halves of every head are interleaved: row `i` of its first half
            becomes row `2 i`, row `i` of its second half row `2 i + 1`.
            Source: conversion/llama.py of llama.cpp, `LlamaModel.permute`.
        values: The tensor itself, float32, where no checkpoint has it.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    permuted_heads: int | None = None
    values: tuple[float, ...] | None = None

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Length of a row, which is what a block of a type must divide."""
        return self.shape[-1]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Sizes of the model, which the mixture of types and the memory forecast ask for.

    Attributes:
        layers: Number of blocks.
        hidden: Width of the residual stream.
        vocabulary: Rows of the token embedding.
        context: Longest sequence in tokens that the configuration names.
        head_dim: Width of one head, keys and values alike.
        heads: Query heads of each layer; 0 where the layer has no attention.
        kv_heads: Key and value heads of each layer.
        ffn: Width of the feed-forward part of each layer.
        ties_embeddings: Whether the head is the token embedding, so that no `output.weight` is
            in the file.
        is_causal: Whether it generates text; an encoder for embeddings does not.
        pooling: Number of llama.cpp's pooling type (1 mean, 2 CLS); None of causal models.
        sliding_window: Tokens that a layer of the checkpoint looks back, where that is less than
            all; llama.cpp's graphs of these architectures look back at all, and none is stored.
    """

    layers: int
    hidden: int
    vocabulary: int
    context: int
    head_dim: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    ffn: tuple[int, ...]
    ties_embeddings: bool
    is_causal: bool
    pooling: int | None = None
    sliding_window: int | None = None


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A file as it will be, without vocabulary and types.

    The order of its keys is `metadata`, the vocabulary's, `closing_metadata`. The order of its
    tensors is llama-quantize's, not that of `tensors`.

    Attributes:
        architecture: `general.architecture`: llama, qwen2, qwen3, bert or deci.
        metadata: From `general.architecture` to the architecture's last key.
        tensors: In the order of the checkpoint.
        notes: Lines for people: what was chosen because the checkpoint is unusual.
    """

    architecture: str
    metadata: Metadata
    tensors: tuple[TensorPlan, ...]
    facts: ModelFacts
    notes: tuple[str, ...] = ()


def text(value: str | bytes) -> MetadataValue:
    """A STRING."""
    return MetadataValue(type=ValueType.STRING, value=value)


def uint32(value: int) -> MetadataValue:
    """A UINT32."""
    return MetadataValue(type=ValueType.UINT32, value=value)


def float32(value: float) -> MetadataValue:
    """A FLOAT32; rounded when it is written."""
    return MetadataValue(type=ValueType.FLOAT32, value=value)


def boolean(value: bool) -> MetadataValue:
    """A BOOL."""
    return MetadataValue(type=ValueType.BOOL, value=value)


def array(item: ValueType, values: Sequence[Scalar]) -> MetadataValue:
    """An ARRAY of items of one type."""
    return MetadataValue(type=ValueType.ARRAY, value=tuple(values), item=item)


def closing_metadata(file_type: int) -> Metadata:
    """The keys that llama-quantize writes last, after the vocabulary.

    Source: src/llama-quant.cpp of llama.cpp, `llama_model_quantize_impl`: both keys are set again
    after all others were copied, which moves them to the end.

    Args:
        file_type: Number of the `llama_ftype`.
    """
    return (
        ("general.quantization_version", uint32(_QUANTIZATION_VERSION)),
        ("general.file_type", uint32(file_type)),
    )


_QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION of ggml/include/ggml.h."""
