"""Blueprint of a decoder: its sizes, its widths, the architecture that takes them, its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.architectures.configuration import Configuration
from edgeship.exporters.gguf.architectures.deci import fitting_decoder
from edgeship.exporters.gguf.architectures.decoder import (
    Decoder,
    DecoderSizes,
    decoder_metadata,
    decoder_needs,
)
from edgeship.exporters.gguf.architectures.general import general_metadata
from edgeship.exporters.gguf.architectures.inventory import match_tensors
from edgeship.exporters.gguf.architectures.pooling import read_pooling
from edgeship.exporters.gguf.architectures.qwen3 import refuse_reranker
from edgeship.exporters.gguf.architectures.refusals import refuse_activation, unsupported
from edgeship.exporters.gguf.architectures.rope import read_rope, rope_freqs
from edgeship.exporters.gguf.architectures.widths import LayerTensors, Widths, measure_widths
from edgeship.exporters.gguf.blueprint import Blueprint, ModelFacts
from edgeship.source.tensor_source import TensorEntry

_HEAD: Final = "lm_head.weight"
_BUFFERS: Final = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
"""What the converter leaves out: conversion/base.py of llama.cpp, `prepare_tensors`."""
_RERANKER: Final = "qwen3-reranker"


def decoder_blueprint(
    directory: Path,
    configuration: Configuration,
    entries: Mapping[str, TensorEntry],
    decoder: Decoder,
    class_name: str,
) -> Blueprint:
    """The blueprint of a decoder that `config.json` calls `class_name`.

    Raises:
        ConfigurationError: Tensors or values that do not fit.
        ExportFailed: A variant that llama.cpp does not compute.
    """
    is_bare = not class_name.endswith("ForCausalLM")
    prefix = "" if is_bare else "model."
    refuse_activation(configuration, ("silu",))
    if decoder.normalises_heads:
        refuse_reranker(directory, configuration)
    sizes = _read_sizes(directory, configuration, decoder, is_bare=is_bare)
    layers = LayerTensors(directory=directory, entries=entries, prefix=prefix)
    _refuse_empty_layers(layers, sizes.layers)
    widths = measure_widths(configuration, layers, sizes.layers, decoder.head_dim)
    chosen, reasons = fitting_decoder(decoder, widths, sizes.hidden, directory)
    needs = decoder_needs(chosen, sizes, widths, prefix)
    unused = _norms_without_attention(widths, prefix)
    if sizes.ties_embeddings:
        unused = (*unused, _HEAD)
    tensors = match_tensors(
        directory, entries, needs, lambda name: name in unused or name.endswith(_BUFFERS)
    )
    if sizes.rope.llama3 is not None:
        computed = rope_freqs(sizes.rope.llama3, sizes.rope.theta, widths.head_dim)
        tensors = (computed, *tensors)
    weights = sum(plan.elements for plan in tensors)
    head_notes = _notes(sizes, has_head=_HEAD in entries, is_bare=is_bare)
    return Blueprint(
        architecture=chosen.architecture,
        metadata=(
            *general_metadata(directory, chosen.architecture, weights),
            *decoder_metadata(chosen, sizes, widths),
        ),
        tensors=tensors,
        facts=_facts(sizes, widths),
        notes=(*widths.corrections, *reasons, *head_notes),
    )


def _read_sizes(
    directory: Path, configuration: Configuration, decoder: Decoder, *, is_bare: bool
) -> DecoderSizes:
    context = configuration.count("max_position_embeddings", decoder.context)
    rope = read_rope(configuration, context)
    if rope.kind not in decoder.rope_kinds:
        what = f"llama.cpp's {decoder.architecture} has no {rope.kind} scaling"
        raise unsupported(configuration, "rope_parameters", what)
    return DecoderSizes(
        layers=configuration.count("num_hidden_layers"),
        hidden=configuration.count("hidden_size"),
        vocabulary=configuration.count("vocab_size"),
        context=context,
        epsilon=configuration.number("rms_norm_eps", decoder.epsilon),
        rope=rope,
        ties_embeddings=is_bare or configuration.flag("tie_word_embeddings", default=False),
        attends_back=configuration.flag("is_causal", default=True),
        names_head_dim=configuration.has("head_dim"),
        sliding_window=_sliding_window(configuration, decoder, context),
        pooling=read_pooling(directory) if decoder.stores_pooling else None,
    )


def _sliding_window(configuration: Configuration, decoder: Decoder, context: int) -> int | None:
    """Tokens that a layer of the checkpoint looks back, where that is less than all."""
    if decoder.sliding_window is None:
        return None
    is_off = not configuration.flag("use_sliding_window", default=not decoder.stores_pooling)
    is_null = "sliding_window" in configuration.keys and not configuration.has("sliding_window")
    if is_off or is_null:
        return None
    window = configuration.count("sliding_window", decoder.sliding_window)
    return window if 0 < window < context else None


def _refuse_empty_layers(tensors: LayerTensors, layers: int) -> None:
    found = {
        name.removeprefix(f"{tensors.prefix}layers.").partition(".")[0]
        for name in tensors.entries
        if name.startswith(f"{tensors.prefix}layers.")
    }
    empty = [layer for layer in range(layers) if str(layer) not in found]
    if empty or not layers:
        problem = Problem(
            where=str(tensors.directory),
            what="layers have no tensors",
            expected=f"tensors named {tensors.prefix}layers.0 to {layers - 1} (num_hidden_layers)",
            found=f"none of layers {', '.join(map(str, empty[:9]))}" if layers else "no layers",
            remedy="fetch or save the model again; config.json must be of the same model",
        )
        raise ConfigurationError(problem)


def _norms_without_attention(widths: Widths, prefix: str) -> tuple[str, ...]:
    """The normalisations that pruning left where it took the attention."""
    return tuple(
        f"{prefix}layers.{layer}.input_layernorm.weight"
        for layer, heads in enumerate(widths.heads)
        if not heads
    )


def _notes(sizes: DecoderSizes, *, has_head: bool, is_bare: bool) -> Iterator[str]:
    if is_bare:
        yield "the checkpoint has no head: llama.cpp takes the token embedding for it"
    elif sizes.ties_embeddings and has_head:
        yield f"{_HEAD} is left out: config.json ties it to the token embedding"
    if sizes.sliding_window is not None:
        yield (
            f"llama.cpp attends to all {sizes.context} tokens here, the checkpoint to "
            f"{sizes.sliding_window}: beyond that many their results differ"
        )
    if sizes.rope.kind == "dynamic":
        yield f"llama.cpp does not stretch positions beyond {sizes.context} tokens here"


def _facts(sizes: DecoderSizes, widths: Widths) -> ModelFacts:
    return ModelFacts(
        layers=sizes.layers,
        hidden=sizes.hidden,
        vocabulary=sizes.vocabulary,
        context=sizes.context,
        head_dim=widths.head_dim,
        heads=widths.heads,
        kv_heads=widths.kv_heads,
        ffn=widths.ffn,
        ties_embeddings=sizes.ties_embeddings,
        is_causal=sizes.attends_back and sizes.pooling is None,
        pooling=sizes.pooling,
        sliding_window=sizes.sliding_window,
    )
