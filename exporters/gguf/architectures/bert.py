"""BERT: an encoder for embeddings; its heads for other tasks are left out.

Source: conversion/bert.py of llama.cpp, `BertModel`; `BertConfig` of transformers;
src/models/bert.cpp for what is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edgeship.exporters.gguf.architectures.configuration import Configuration
from edgeship.exporters.gguf.architectures.general import general_metadata
from edgeship.exporters.gguf.architectures.inventory import Need, match_tensors, need
from edgeship.exporters.gguf.architectures.pooling import read_pooling
from edgeship.exporters.gguf.architectures.refusals import refuse_activation, unsupported
from edgeship.exporters.gguf.blueprint import (
    Blueprint,
    MetadataValue,
    ModelFacts,
    ValueType,
    array,
    boolean,
    float32,
    uint32,
)
from edgeship.source.tensor_source import TensorEntry

_NAME: Final = "bert"
_CONTEXT: Final = 512
_EPSILON: Final = 1e-12
"""`max_position_embeddings` and `layer_norm_eps` of `BertConfig`."""
_PREFIX: Final = "bert."
_ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh")
_LEFT_OUT: Final = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
_HEADS: Final = ("cls.predictions", "cls.seq_relationship")
_MODULES: Final[Mapping[str, str]] = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
"""Modules of a layer, by their names in the file."""
_OLD_NAMES: Final = {"gamma": "weight", "beta": "bias"}
"""What TensorFlow checkpoints call the two parameters of a normalisation."""


def bert_blueprint(
    directory: Path, configuration: Configuration, entries: Mapping[str, TensorEntry]
) -> Blueprint:
    """The blueprint of a BERT.

    Raises:
        ConfigurationError: Tensors or values that do not fit.
        ExportFailed: A variant that llama.cpp does not compute.
    """
    refuse_activation(configuration, _ACTIVATIONS)
    positions = configuration.text("position_embedding_type", "absolute")
    if positions != "absolute":
        what = f"llama.cpp computes absolute positions here, the checkpoint has {positions}"
        raise unsupported(configuration, "position_embedding_type", what)
    facts = _facts(directory, configuration)
    names = {_plain_name(name): name for name in entries}
    needs = _needs(configuration, facts, names)
    tensors = match_tensors(directory, entries, needs, _is_left_out)
    weights = sum(plan.elements for plan in tensors)
    notes = ("no pooling is stored: modules.json names none",) if facts.pooling is None else ()
    return Blueprint(
        architecture=_NAME,
        metadata=(
            *general_metadata(directory, _NAME, weights),
            *_metadata(configuration, facts),
        ),
        tensors=tensors,
        facts=facts,
        notes=notes,
    )


def _facts(directory: Path, configuration: Configuration) -> ModelFacts:
    layers = configuration.count("num_hidden_layers")
    hidden = configuration.count("hidden_size")
    heads = configuration.count("num_attention_heads")
    if not heads or hidden % heads:
        what = "the width of the model is no multiple of its heads"
        raise configuration.refusal(what, key="num_attention_heads", found=heads)
    return ModelFacts(
        layers=layers,
        hidden=hidden,
        vocabulary=configuration.count("vocab_size"),
        context=configuration.count("max_position_embeddings", _CONTEXT),
        head_dim=hidden // heads,
        heads=(heads,) * layers,
        kv_heads=(heads,) * layers,
        ffn=(configuration.count("intermediate_size"),) * layers,
        ties_embeddings=True,
        is_causal=False,
        pooling=read_pooling(directory),
    )


def _metadata(
    configuration: Configuration, facts: ModelFacts
) -> Iterator[tuple[str, MetadataValue]]:
    epsilon = configuration.number("layer_norm_eps", _EPSILON)
    yield f"{_NAME}.block_count", uint32(facts.layers)
    yield f"{_NAME}.context_length", uint32(facts.context)
    yield f"{_NAME}.embedding_length", uint32(facts.hidden)
    yield f"{_NAME}.feed_forward_length", uint32(configuration.count("intermediate_size"))
    yield f"{_NAME}.attention.head_count", uint32(configuration.count("num_attention_heads"))
    yield f"{_NAME}.attention.layer_norm_epsilon", float32(epsilon)
    yield f"{_NAME}.attention.causal", boolean(False)
    if facts.pooling is not None:
        yield f"{_NAME}.pooling_type", uint32(facts.pooling)
    labels = _labels(configuration)
    if labels:
        yield f"{_NAME}.classifier.output_labels", array(ValueType.STRING, labels)


def _labels(configuration: Configuration) -> tuple[str, ...]:
    """Names of classes, which the converter stores though it leaves the classifier out.

    Two of transformers' default names count as none; without names there are two of them.
    """
    table = configuration.section("id2label")
    if table is None:
        count = configuration.count("num_labels", 2)
        names = tuple(f"LABEL_{index}" for index in range(count))
    else:
        keys = sorted(table.keys, key=lambda key: int(key) if key.isdecimal() else 0)
        names = tuple(table.text(key, "") for key in keys)
    return () if len(names) == 2 and names[0] == "LABEL_0" else names


def _needs(
    configuration: Configuration, facts: ModelFacts, names: Mapping[str, str]
) -> Iterator[Need]:
    """Every tensor; `names` are the checkpoint's by the plain ones."""
    hidden, ffn = facts.hidden, configuration.count("intermediate_size")
    types = configuration.count("type_vocab_size", 2)

    def wanted(name: str, source: str, *shape: int) -> Need:
        return need(name, names.get(source, source), *shape)

    yield wanted("token_embd.weight", "embeddings.word_embeddings.weight", facts.vocabulary, hidden)
    yield wanted(
        "position_embd.weight", "embeddings.position_embeddings.weight", facts.context, hidden
    )
    yield wanted("token_types.weight", "embeddings.token_type_embeddings.weight", types, hidden)
    yield wanted("token_embd_norm.weight", "embeddings.LayerNorm.weight", hidden)
    yield wanted("token_embd_norm.bias", "embeddings.LayerNorm.bias", hidden)
    for layer in range(facts.layers):
        for module, source in _MODULES.items():
            rows = ffn if module == "ffn_up" else hidden
            columns = ffn if module == "ffn_down" else hidden
            shape = (rows,) if module.endswith("norm") else (rows, columns)
            inner = f"encoder.layer.{layer}.{source}"
            yield wanted(f"blk.{layer}.{module}.weight", f"{inner}.weight", *shape)
            yield wanted(f"blk.{layer}.{module}.bias", f"{inner}.bias", rows)


def _plain_name(name: str) -> str:
    stem, _, last = name.removeprefix(_PREFIX).rpartition(".")
    return f"{stem}.{_OLD_NAMES.get(last, last)}"


def _is_left_out(name: str) -> bool:
    plain = _plain_name(name)
    return plain in _LEFT_OUT or plain.startswith(_HEADS)
