"""Limits: what llama.cpp is known to do otherwise, so that no model is refused for it."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from edgeship.exporters.gguf.vocabulary.patterns import PATTERNS
from edgeship.exporters.gguf.vocabulary.reader import Vocabulary

_HANGUL: Final = re.compile("[\uac00-\ud7a3]")


def known_limit(vocabulary: Vocabulary, text: str) -> str | None:
    """Why llama.cpp may find other tokens in a text; None where it must find the same.

    Source: src/unicode.cpp of llama.cpp, `unicode_cpts_normalize_nfd`, which keeps one code point
    of each; src/llama-vocab.cpp, `tokenize` and the simplified expressions. All seen in proofs.
    """
    if vocabulary.kind == "bert" and _HANGUL.search(text):
        return "llama.cpp keeps the first part alone of each Korean syllable"
    if vocabulary.kind == "llama" and text.startswith(" "):
        return "llama.cpp puts a space before a text that begins with one"
    loose = {pattern.name for pattern in PATTERNS if pattern.cuts_marks_off}
    if vocabulary.pretokenizer in loose and any(_is_mark(letter) for letter in text):
        return "llama.cpp cuts combining marks off their letters"
    return None


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M")
