"""SentencePiece vocabularies: `tokenizer.model`, as Llama and Mistral have it.

Source: conversion/base.py of llama.cpp, `_create_vocab_sentencepiece`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import Metadata
from edgeship.exporters.gguf.vocabulary.files import (
    ADDED,
    TokenizerFiles,
    content_of,
    table,
)
from edgeship.exporters.gguf.vocabulary.special import special_metadata
from edgeship.exporters.gguf.vocabulary.tokens import (
    SPACE,
    Token,
    TokenType,
    looks_special,
    padding_token,
    token_metadata,
)
from edgeship.exporters.gguf.vocabulary.vendors import vendor
from edgeship.source.hf_config import read_json_object

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_NO_PIECE: Final = -10000.0
_ADDED: Final = -1000.0
"""Scores of tokens that SentencePiece does not know; source as above."""


def sentencepiece_metadata(files: TokenizerFiles, file: Path, rows: int) -> Metadata:
    """The keys of a SentencePiece vocabulary.

    Args:
        files: Of the tokenizer.
        file: The SentencePiece model.
        rows: Of the embedding; a token beyond them is left out, a row beyond them padded.

    Raises:
        ConfigurationError: A file cannot be read.
    """
    processor = open_pieces(file)
    tokens = [padding_token(number, score=_NO_PIECE) for number in range(rows)]
    for number in range(min(rows, processor.GetPieceSize())):
        tokens[number] = Token(
            text=processor.IdToPiece(number),
            type=_piece_type(processor, number),
            score=processor.GetScore(number),
        )
    for number, token in _added(files):
        if 0 <= number < rows:
            tokens[number] = token
    return (
        *token_metadata("llama", "default", tokens, has_scores=True),
        *special_metadata(files, rows),
    )


def open_pieces(file: Path) -> SentencePieceProcessor:
    """Load a SentencePiece model.

    Raises:
        ConfigurationError: It is none.
        RequirementMissing: The sentencepiece package is not installed.
    """
    package = vendor("sentencepiece")
    processor: SentencePieceProcessor = package.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(file.read_bytes())
    except (OSError, RuntimeError) as error:
        problem = Problem(
            where=str(file),
            what="the SentencePiece model cannot be read",
            found=str(error)[:200],
            remedy="fetch it again, or remove it if tokenizer.json is the tokenizer",
        )
        raise ConfigurationError(problem) from error
    return processor


def _piece_type(processor: SentencePieceProcessor, number: int) -> TokenType:
    if processor.IsUnknown(number):
        return TokenType.UNKNOWN
    if processor.IsControl(number):
        return TokenType.CONTROL
    if processor.IsUnused(number):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.IsByte(number) else TokenType.NORMAL


def _added(files: TokenizerFiles) -> Iterator[tuple[int, Token]]:
    """Tokens by number that other files add to the model, or put in place of its own."""
    added = files.directory / ADDED
    if added.is_file():
        for content, number in read_json_object(added).items():
            if isinstance(number, int):
                yield number, Token(text=content, type=TokenType.USER_DEFINED, score=_ADDED)
    for name, entry in table(files.settings.get("added_tokens_decoder")).items():
        listed = content_of(entry)
        if name.isdigit() and listed is not None:
            yield int(name), added_token(listed, table(entry))


def added_token(content: str, entry: Mapping[str, object]) -> Token:
    """A token that the settings list: what is special is not part of a text."""
    if entry.get("special") or looks_special(content):
        return Token(text=content, type=TokenType.CONTROL, score=_ADDED)
    plain = content.replace(SPACE, " ")
    return Token(text=plain, type=TokenType.USER_DEFINED, score=_ADDED)
