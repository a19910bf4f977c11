"""Comparison: token numbers by the Hugging Face files alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from edgeship.exporters.gguf.vocabulary.files import TokenizerFiles
from edgeship.exporters.gguf.vocabulary.reference import open_reference
from edgeship.exporters.gguf.vocabulary.sentencepiece import open_pieces

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

_SPECIALS: Final = 32
"""How many special tokens are looked at; a choice, some vocabularies have a thousand reserved."""


class HuggingFace(Protocol):
    """A tokenizer to compare with.

    Attributes:
        composes_accents: Whether it brings texts into Unicode's form NFC.
        special_numbers: Some of its special tokens.
    """

    @property
    def composes_accents(self) -> bool: ...  # noqa: D102 - above
    @property
    def special_numbers(self) -> tuple[int, ...]: ...  # noqa: D102 - above
    def encode(self, text: str) -> list[int]:
        """Numbers of a text's tokens, with those that begin and end every text."""


@dataclass(frozen=True, kw_only=True)
class JsonTokenizer:
    """By `tokenizer.json`."""

    tokenizer: Tokenizer
    composes_accents: bool
    special_numbers: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """See `HuggingFace.encode`."""
        return list(self.tokenizer.encode(text).ids)


@dataclass(frozen=True, kw_only=True)
class PieceTokenizer:
    """By the SentencePiece model, where there is no `tokenizer.json`."""

    processor: SentencePieceProcessor
    adds_bos: bool
    adds_eos: bool
    composes_accents: bool = False
    special_numbers: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """See `HuggingFace.encode`."""
        first = [self.processor.bos_id()] if self.adds_bos else []
        last = [self.processor.eos_id()] if self.adds_eos else []
        return [*first, *self.processor.EncodeAsIds(text), *last]


def open_hugging_face(files: TokenizerFiles) -> HuggingFace:
    """Load whichever the directory has, `tokenizer.json` first.

    Raises:
        ConfigurationError: It has neither, or one that cannot be read.
    """
    pieces = files.pieces
    if not files.has_tokenizer and pieces is not None:
        return PieceTokenizer(
            processor=open_pieces(pieces),
            adds_bos=files.settings.get("add_bos_token", True)
            is True,  # transformers' LlamaTokenizer
            adds_eos=files.settings.get("add_eos_token", False) is True,
        )
    tokenizer = open_reference(files)
    added = tokenizer.get_added_tokens_decoder()
    special = sorted(number for number, token in added.items() if token.special)
    return JsonTokenizer(
        tokenizer=tokenizer,
        composes_accents=_composes(tokenizer),
        special_numbers=tuple(special[:_SPECIALS]),
    )


def _composes(tokenizer: Tokenizer) -> bool:
    normalizer = tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("e\u0301") == "\u00e9"
