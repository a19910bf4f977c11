"""Qwen2, of which Qwen2.5 and DeepSeek's distills of it are.

Source: conversion/qwen.py of llama.cpp; `Qwen2Config` of transformers. src/models/qwen2.cpp loads
square q and o projections and no bias of the latter.
"""

from __future__ import annotations

from typing import Final

from edgeship.exporters.gguf.architectures.decoder import ATTENTION_BIASES, Decoder

QWEN2: Final = Decoder(
    architecture="qwen2",
    biases=ATTENTION_BIASES,
    permutes=False,
    stores_pooling=True,
    stores_head_dim=False,
    takes_any_heads=False,
    rope_kinds=("default", "dynamic", "linear", "yarn"),
    context=32768,
    epsilon=1e-6,
    sliding_window=4096,
)
