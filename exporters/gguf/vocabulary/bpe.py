"""Tokens of `tokenizer.json`: byte-level BPE, and what WordPiece has in common with it.

Source: conversion/base.py of llama.cpp, `get_vocab_base` and `_set_vocab_gpt2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import Metadata, ValueType, array, boolean
from edgeship.exporters.gguf.vocabulary.files import Table, TokenizerFiles
from edgeship.exporters.gguf.vocabulary.pretokenizer import adds_bos, pretokenizer_type
from edgeship.exporters.gguf.vocabulary.reference import open_reference
from edgeship.exporters.gguf.vocabulary.special import ADD_BOS, special_metadata
from edgeship.exporters.gguf.vocabulary.tokens import (
    MERGES,
    SPACE,
    Token,
    TokenType,
    looks_special,
    padding_token,
    token_metadata,
)

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer


def bpe_metadata(files: TokenizerFiles, rows: int) -> Metadata:
    """The keys of a byte-level BPE vocabulary.

    Raises:
        ConfigurationError: A file cannot be read, or there are more tokens than rows.
        ExportFailed: llama.cpp has no such pre-tokenizer.
    """
    tokens = read_tokens(files, open_reference(files), rows)
    model = files.required_model()  # after its reader is gone: either takes 100 MB for 150k tokens
    pre = pretokenizer_type(files)
    merges = merges_of(model)
    special = special_metadata(files, None)
    silent = ADD_BOS not in dict(special) and adds_bos(pre)
    return (
        *token_metadata("gpt2", pre, tokens),
        *(((MERGES, array(ValueType.STRING, merges)),) if merges else ()),
        *special,
        *(((ADD_BOS, boolean(False)),) if silent else ()),  # the converter would let it be added
    )


def merges_of(model: Table) -> list[str]:
    """The merges of `tokenizer.json`, the most frequent first."""
    merges = model.get("merges")
    return merges if isinstance(merges, list) else []


def read_tokens(files: TokenizerFiles, tokenizer: Tokenizer, rows: int) -> list[Token]:
    """Each row's token; padding where there is none.

    Raises:
        ConfigurationError: There are more tokens than rows.
    """
    texts = {number: text for text, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    if max(texts, default=-1) >= rows:
        problem = Problem(
            where=str(files.directory),
            what="the tokenizer has tokens for which the model has no embedding",
            expected=f"numbers below vocab_size = {rows}",
            found=f"{texts[max(texts)]!r} with number {max(texts)}",
            remedy="call model.resize_token_embeddings() and save the model again",
        )
        raise ConfigurationError(problem)
    added = tokenizer.get_added_tokens_decoder()
    return [
        _token(tokenizer, texts[number], added.get(number))
        if number in texts
        else padding_token(number)
        for number in range(rows)
    ]


def _token(tokenizer: Tokenizer, content: str, added: AddedToken | None) -> Token:
    if added is None:
        return Token(text=content, type=TokenType.NORMAL)
    if not added.normalized:  # llama.cpp looks for it in texts that are not normalized
        numbers = tokenizer.encode(content, add_special_tokens=False).ids
        content = tokenizer.decode(numbers, skip_special_tokens=False)
    if added.special or looks_special(content):
        return Token(text=content, type=TokenType.CONTROL)
    return Token(text=content.replace(SPACE, " "), type=TokenType.USER_DEFINED)
