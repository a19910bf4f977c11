"""Qwen3: q and k are normalised per head, and a head's width is a number of its own.

Source: conversion/qwen.py of llama.cpp; `Qwen3Config` of transformers. src/models/qwen3.cpp loads
no bias of the output projection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeship.exporters.gguf.architectures.configuration import Configuration
from edgeship.exporters.gguf.architectures.decoder import ATTENTION_BIASES, Decoder
from edgeship.exporters.gguf.architectures.refusals import unsupported

_RERANKER: Final = "qwen3-reranker"
_CARD: Final = "README.md"
QWEN3: Final = Decoder(
    architecture="qwen3",
    biases=ATTENTION_BIASES,
    permutes=False,
    normalises_heads=True,
    stores_pooling=True,
    rope_kinds=("default", "dynamic", "linear", "yarn"),
    context=32768,
    epsilon=1e-6,
    head_dim=128,
    sliding_window=4096,
)


def refuse_reranker(directory: Path, configuration: Configuration) -> None:
    """Look for a reranker, of which the converter makes a classifier with two rows of the head.

    Source: conversion/qwen.py of llama.cpp, `_is_qwen3_reranker`.

    Raises:
        ExportFailed: The directory's name, its card or `config.json` say that it is one.
    """
    card = directory / _CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    names = (directory.absolute().name, configuration.text("_name_or_path", ""))
    is_titled = f"# {_RERANKER}" in text.lower()
    if is_titled or any(_RERANKER in name.lower() for name in names):
        what = "the checkpoint is a reranker, which is not written here"
        raise unsupported(configuration, "architectures", what)
