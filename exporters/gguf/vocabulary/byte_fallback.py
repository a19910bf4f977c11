"""SentencePiece vocabularies that were saved as `tokenizer.json` alone.

Source: gguf-py/gguf/vocab.py of llama.cpp, `LlamaHfVocab`, but for two things. That one gives all
tokens one score, so that llama.cpp joins pieces from the left instead of in the order of the
merges and finds other tokens; here the score is the merge's place, as SentencePiece has it. And it
writes no padding for rows without a token, so that llama.cpp refuses the file.
"""

from __future__ import annotations

import re
from typing import Final

from edgeship.exporters.gguf.blueprint import Metadata
from edgeship.exporters.gguf.vocabulary.bpe import merges_of, read_tokens
from edgeship.exporters.gguf.vocabulary.files import TokenizerFiles, content_of, table
from edgeship.exporters.gguf.vocabulary.reference import open_reference, special_contents
from edgeship.exporters.gguf.vocabulary.special import special_metadata
from edgeship.exporters.gguf.vocabulary.tokens import Token, TokenType, token_metadata

_BYTE: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_UNMERGED: Final = -1e6
"""Below the score of every merge; llama.cpp never asks for it, a choice."""


def has_byte_fallback(files: TokenizerFiles) -> bool:
    """Whether `tokenizer.json` is a SentencePiece vocabulary."""
    model = table((files.tokenizer or {}).get("model"))
    return model.get("type") == "BPE" and model.get("byte_fallback") is True


def byte_fallback_metadata(files: TokenizerFiles, rows: int) -> Metadata:
    """The keys of such a vocabulary.

    Raises:
        ConfigurationError: A file cannot be read, or there are more tokens than rows.
    """
    model = files.required_model()
    scores = _scores(merges_of(model))
    special = set(special_contents(files.settings))
    unknown = content_of(model.get("unk_token"))
    tokens = [
        Token(
            text=token.text,
            type=_type(token, special, unknown),
            score=scores.get(token.text, _UNMERGED),
        )
        for token in read_tokens(files, open_reference(files), rows)
    ]
    return (
        *token_metadata("llama", "default", tokens, has_scores=True),
        *special_metadata(files, rows),
    )


def _type(token: Token, special: set[str], unknown: str | None) -> TokenType:
    if _BYTE.fullmatch(token.text):
        return TokenType.BYTE
    if token.text == unknown:
        return TokenType.UNKNOWN
    return TokenType.CONTROL if token.text in special else token.type


def _scores(merges: list[str]) -> dict[str, float]:
    """Minus the place of the first merge that makes a token."""
    found: dict[str, float] = {}
    for place, merge in enumerate(merges):
        found.setdefault(merge.replace(" ", "", 1), -float(place))
    return found
