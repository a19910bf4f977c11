"""Llama and Mistral, which llama.cpp computes alike.

Source: conversion/llama.py of llama.cpp; `LlamaConfig` and `MistralConfig` of transformers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgeship.exporters.gguf.architectures.decoder import ATTENTION_BIASES, Decoder

LLAMA: Final = Decoder(
    architecture="llama",
    biases=(*ATTENTION_BIASES, "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
    permutes=True,
    stores_vocabulary=True,
    rope_kinds=("default", "dynamic", "linear", "yarn", "llama3"),
    context=2048,
    epsilon=1e-6,
)
MISTRAL: Final = replace(LLAMA, context=4096 * 32, sliding_window=4096)
