"""WordPiece vocabularies, as BERT has them.

Source: conversion/bert.py of llama.cpp, `BertModel.set_vocab`.
"""

from __future__ import annotations

from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.blueprint import Metadata, uint32
from edgeship.exporters.gguf.vocabulary.bpe import read_tokens
from edgeship.exporters.gguf.vocabulary.files import TOKENIZER, TokenizerFiles
from edgeship.exporters.gguf.vocabulary.reference import open_reference
from edgeship.exporters.gguf.vocabulary.special import special_metadata
from edgeship.exporters.gguf.vocabulary.tokens import SPACE, Token, TokenType, token_metadata

_PRE: Final = "jina-v2-en"
"""What the converter writes for the vocabulary of bert-base-uncased, by the hash of its tokens;
llama.cpp reads no pre-tokenizer of WordPiece vocabularies (src/llama-vocab.cpp, `load`)."""
_SEGMENTS: Final = "tokenizer.ggml.token_type_count"
_CONTINUED: Final = "##"


def wordpiece_metadata(files: TokenizerFiles, rows: int) -> Metadata:
    """The keys of a WordPiece vocabulary.

    Raises:
        ConfigurationError: A file cannot be read, or there are more tokens than rows.
        ExportFailed: The vocabulary is of another kind.
    """
    model = files.required_model()
    prefix = model.get("continuing_subword_prefix", _CONTINUED)
    if model.get("type", "WordPiece") != "WordPiece" or prefix != _CONTINUED:
        problem = Problem(
            where=str(files.directory / TOKENIZER),
            what="the encoder's tokenizer is of a kind that is not exported",
            expected=f"WordPiece with the prefix {_CONTINUED}",
            found=f"{model.get('type')} with the prefix {prefix}",
            remedy="use the onnx or tflite format, which leave the tokenizer to the application",
        )
        raise ExportFailed(problem)
    tokens = [_from_word_start(token) for token in read_tokens(files, open_reference(files), rows)]
    segments = files.config.get("type_vocab_size", 1)
    return (
        (_SEGMENTS, uint32(segments if isinstance(segments, int) else 1)),
        *token_metadata("bert", _PRE, tokens),
        *special_metadata(files, rows),
    )


def _from_word_start(token: Token) -> Token:
    """llama.cpp marks the beginning of words, where WordPiece marks what continues them."""
    if token.type is TokenType.CONTROL:
        return token
    if token.text.startswith(_CONTINUED):
        return Token(text=token.text.removeprefix(_CONTINUED), type=token.type)
    return Token(text=SPACE + token.text, type=token.type)
