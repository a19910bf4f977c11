"""Reader: from the tokenizer of a Hugging Face directory to the keys of a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import Metadata, boolean
from edgeship.exporters.gguf.vocabulary.bpe import bpe_metadata
from edgeship.exporters.gguf.vocabulary.byte_fallback import (
    byte_fallback_metadata,
    has_byte_fallback,
)
from edgeship.exporters.gguf.vocabulary.files import SETTINGS, TokenizerFiles
from edgeship.exporters.gguf.vocabulary.sentencepiece import sentencepiece_metadata
from edgeship.exporters.gguf.vocabulary.special import with_family_rules
from edgeship.exporters.gguf.vocabulary.tokens import (
    MODEL,
    PRE,
    TOKENS,
    check_bytes,
    check_distinct,
)
from edgeship.exporters.gguf.vocabulary.wordpiece import wordpiece_metadata

_LLAMA: Final = frozenset({"llama", "deci"})
_SPACE_PREFIX: Final = "tokenizer.ggml.add_space_prefix"
_UNKNOWN: Final = "tokenizer.ggml.unknown_token_id"
_ASSUMED: Final = 102
"""Largest of the numbers that llama.cpp assumes for a WordPiece file without special tokens
(llama-vocab.cpp, LLAMA_VOCAB_TYPE_WPM); beyond the vocabulary it ends the process."""
_TEKKEN: Final = "tekken.json"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a GGUF file says of its tokens.

    Attributes:
        metadata: All `tokenizer.` keys, in the order of the converter of llama.cpp.
        size: Number of tokens, which is that of the embedding's rows.
        kind: "llama" for SentencePiece, "gpt2" for byte-level BPE, "bert" for WordPiece.
        pretokenizer: How a text is cut before tokens are looked for, by llama.cpp's name.
        tokens: Texts of the tokens by number, as they stand in the file.
    """

    metadata: Metadata
    size: int
    kind: str
    pretokenizer: str
    tokens: tuple[str, ...]


def read_vocabulary(directory: Path, architecture: str, size: int) -> Vocabulary:
    """Read the tokenizer of a checkpoint.

    Args:
        directory: With `tokenizer.json` or `tokenizer.model`, their settings and `config.json`.
        architecture: `general.architecture` of the file.
        size: Rows of the embedding, `vocab_size` of `config.json`.

    Raises:
        ConfigurationError: A file is missing or cannot be read, or the tokens are not the rows.
        ExportFailed: llama.cpp has no such tokenizer.
        RequirementMissing: A package that reads tokenizers is not installed.
    """
    files = TokenizerFiles(directory=directory)
    metadata = _metadata(files, architecture, size)
    known = dict(metadata)
    listed = known[TOKENS].value
    assert isinstance(listed, tuple)  # what token_metadata makes
    tokens = tuple(str(token) for token in listed)
    check_distinct(tokens, str(directory))
    if known[MODEL].value == "llama":
        check_bytes(tokens, str(directory))
    if known[MODEL].value == "bert" and _UNKNOWN not in known and len(tokens) <= _ASSUMED:
        raise ConfigurationError(_unnamed_special(directory))
    return Vocabulary(
        metadata=metadata,
        size=len(tokens),
        kind=str(known[MODEL].value),
        pretokenizer=str(known[PRE].value),
        tokens=tokens,
    )


def _unnamed_special(directory: Path) -> Problem:
    return Problem(
        where=str(directory / "tokenizer_config.json"),
        what="the tokenizer names no unknown token, and llama.cpp would take number 100 for it, "
        "which this vocabulary does not have",
        expected="unk_token, cls_token and sep_token",
        found="none",
        remedy="save the tokenizer with tokenizer.save_pretrained()",
    )


def _metadata(files: TokenizerFiles, architecture: str, rows: int) -> Metadata:
    if architecture == "bert":
        return wordpiece_metadata(files, rows)
    pieces = files.pieces
    if pieces is not None:
        found = sentencepiece_metadata(files, pieces, rows)
    elif architecture in _LLAMA and has_byte_fallback(files):
        found = byte_fallback_metadata(files, rows)
    else:
        _refuse_tekken(files)
        found = bpe_metadata(files, rows)
    return _as_llama(files, found, rows) if architecture in _LLAMA else found


def _as_llama(files: TokenizerFiles, metadata: Metadata, rows: int) -> Metadata:
    """Source: conversion/llama.py of llama.cpp, `LlamaModel.set_vocab`."""
    prefix = files.settings.get("add_prefix_space")
    if prefix is not None and not isinstance(prefix, bool):
        problem = Problem(
            where=f"{files.directory / SETTINGS}: add_prefix_space",
            what="the setting is of another type",
            expected="true or false",
            found=repr(prefix)[:80],
            remedy="save the tokenizer again",
        )
        raise ConfigurationError(problem)
    first = ((_SPACE_PREFIX, boolean(prefix)),) if prefix is not None else ()
    return with_family_rules((*first, *metadata), rows)


def _refuse_tekken(files: TokenizerFiles) -> None:
    if files.tokenizer is None and (files.directory / _TEKKEN).is_file():
        problem = Problem(
            where=str(files.directory / _TEKKEN),
            what="the tokenizer is in Mistral's own form",
            expected="tokenizer.json",
            remedy="load it with transformers and call tokenizer.save_pretrained()",
        )
        raise ConfigurationError(problem)
