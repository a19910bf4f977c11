"""Tokens of a GGUF file, and the keys that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edgeship.errors import ConfigurationError, ExportFailed, Problem
from edgeship.exporters.gguf.blueprint import Metadata, ValueType, array, text

MODEL: Final = "tokenizer.ggml.model"
PRE: Final = "tokenizer.ggml.pre"
TOKENS: Final = "tokenizer.ggml.tokens"
SCORES: Final = "tokenizer.ggml.scores"
TYPES: Final = "tokenizer.ggml.token_type"
MERGES: Final = "tokenizer.ggml.merges"
"""Names of the keys, as those in the other modules: gguf-py/gguf/constants.py of llama.cpp."""
SPACE: Final = "\u2581"
"""What SentencePiece writes for a space."""
_SPECIAL_LOOKS: Final = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_SPECIAL_BRACKETS: Final = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))


class TokenType(IntEnum):
    """What a token is to llama.cpp. Source: include/llama.h, `llama_token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One row of the embedding.

    Attributes:
        text: As it stands in the file.
        score: Of a SentencePiece vocabulary, the greater the earlier it is merged.
    """

    text: str
    type: TokenType
    score: float = 0.0


def padding_token(number: int, *, score: float = 0.0) -> Token:
    """What fills a row of the embedding that no token has."""
    return Token(text=f"[PAD{number}]", type=TokenType.UNUSED, score=score)


def looks_special(content: str) -> bool:
    """Whether an added token that is not marked as special has the form of one.

    Source: conversion/base.py of llama.cpp, `does_token_look_special`.
    """
    return content in _SPECIAL_LOOKS or any(
        content.startswith(first) and content.endswith(last) for first, last in _SPECIAL_BRACKETS
    )


def token_metadata(
    model: str, pre: str, tokens: Iterable[Token], *, has_scores: bool = False
) -> Metadata:
    """The keys of the tokens, in the order in which the converter of llama.cpp writes them."""
    known = tuple(tokens)
    scores = ((SCORES, array(ValueType.FLOAT32, [token.score for token in known])),)
    return (
        (MODEL, text(model)),
        (PRE, text(pre)),
        (TOKENS, array(ValueType.STRING, [token.text for token in known])),
        *(scores if has_scores else ()),
        (TYPES, array(ValueType.INT32, [int(token.type) for token in known])),
    )


def check_distinct(tokens: Iterable[str], where: str) -> None:
    """Refuse two tokens of one text: llama.cpp ends the process when it loads them.

    Raises:
        ConfigurationError: There are such.
    """
    content, count = next(iter(Counter(tokens).most_common(1)), ("", 1))
    if count > 1:
        problem = Problem(
            where=where,
            what="several tokens have the same text, which llama.cpp cannot load",
            found=f"{content!r}, {count} times",
            remedy="rename all but one of them in the tokenizer",
        )
        raise ConfigurationError(problem)


def check_bytes(tokens: Iterable[str], where: str) -> None:
    """Refuse a SentencePiece vocabulary that cannot spell every byte.

    llama.cpp ends the process at the first character that it has no token for.

    Raises:
        ExportFailed: A byte has no token.
    """
    known = frozenset(tokens)
    missing = [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in known]
    if missing:
        problem = Problem(
            where=where,
            what="the vocabulary has no tokens for single bytes, without which llama.cpp ends "
            "the process at an unknown character",
            expected="<0x00> to <0xFF>",
            found=f"{len(missing)} missing, the first {missing[0]}",
            remedy="train the SentencePiece model with byte_fallback",
        )
        raise ExportFailed(problem)
