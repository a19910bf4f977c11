r"""Patterns: how llama.cpp cuts a text before it looks for BPE tokens.

Source: src/llama-vocab.cpp of the llama.cpp that llama-cpp-python 0.3.36 holds, the constructor of
`llm_tokenizer_bpe` and `llama_vocab::impl::load`; where its comments give "original regex from
tokenizer.json", it is that one. Types for one model's control tokens alone (chameleon), for
writing systems by name (kimi-k2, youtu, afmoe, spark2_5) or for BPE over raw UTF-8 (gemma4) are
left out, and so are the many further names of one and the same pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_CONTRACTIONS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAPITALS: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)
_PATH_TAIL: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_PUNCTUATION: Final = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_CJK: Final = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_LETTERS: Final = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293"
    "\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
    "\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc"
    "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Cased letters, one by one."""
_MARKS: Final = "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_SPACES: Final = "|".join(
    rf"\s{{{length}}}(?!\S)" for length in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")
)

_DEEPSEEK: Final = (r"[\r\n]", rf"\s?[{_LETTERS}]+", rf"\s?{_MARKS}", r"\s+$", _CJK)
DIGIT: Final = r"\p{N}"
DIGITS: Final = r"\p{N}+"
PUNCTUATION: Final = r"[\p{P}\$\+<=>\^~\|`]+"
GPT2: Final = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel's own
)
LLAMA3: Final = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2: Final = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_TAIL}"

_EQUAL_FORMS: Final = (
    ("\r", r"\r"),
    ("\n", r"\n"),
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _CONTRACTIONS),
    ("'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", "'(?i:[sdmt]|ll|ve|re)"),
    (r"\p{N}{1}", r"\p{N}"),
    ("[0-9][0-9][0-9]", "[0-9]{3}"),
)
_POSSESSIVE: Final = re.compile(r"(?<=[?*+])\+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """A way to cut texts that llama.cpp knows.

    Attributes:
        name: `tokenizer.ggml.pre`.
        steps: Regular expressions, each of which cuts further what the one before left.
        takes_whole_words: Whether a piece that is a token is not put together from merges
            (`ignore_merges` of tokenizer.json).
        adds_bos: Whether llama.cpp begins texts with a token unless the file says otherwise.
        cuts_marks_off: Whether its expression, which is simpler, splits letters and their marks.
    """

    name: str
    steps: tuple[str, ...]
    takes_whole_words: bool = False
    adds_bos: bool = False
    cuts_marks_off: bool = False


PATTERNS: Final = (
    Pattern(name="llama-bpe", steps=(LLAMA3,), takes_whole_words=True, adds_bos=True),
    Pattern(name="smaug-bpe", steps=(LLAMA3,)),
    Pattern(name="qwen2", steps=(QWEN2,)),
    Pattern(
        name="qwen35",
        steps=(
            _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    Pattern(name="gpt-2", steps=(GPT2,)),
    Pattern(name="smollm", steps=(DIGIT, GPT2)),
    Pattern(name="falcon", steps=(PUNCTUATION, GPT2, "[0-9]{3}")),
    Pattern(name="deepseek-llm", steps=(*_DEEPSEEK, DIGITS)),
    Pattern(name="deepseek-llm", steps=(*_DEEPSEEK, DIGIT)),
    Pattern(name="deepseek-coder", steps=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, DIGIT)),
    Pattern(
        name="deepseek-v3",
        steps=(
            r"\p{N}{1,3}",
            "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            _ASCII_PUNCTUATION + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    Pattern(
        name="tekken",
        steps=(rf"{_CAPITALS[0]}|{_CAPITALS[1]}|\p{{N}}|{_PATH_TAIL}",),
        takes_whole_words=True,
        adds_bos=True,
        cuts_marks_off=True,
    ),
    Pattern(
        name="gpt-4o",
        steps=(
            rf"{_CAPITALS[0]}{_CONTRACTIONS}?|{_CAPITALS[1]}{_CONTRACTIONS}?"
            rf"|\p{{N}}{{1,3}}|{_PATH_TAIL}",
        ),
        cuts_marks_off=True,
    ),
    Pattern(
        name="minicpm5",
        steps=(r"\p{N}{1,3}", rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_TAIL}"),
        takes_whole_words=True,
    ),
    Pattern(
        name="jais-2",
        steps=(
            rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
            rf"|\s*[\r\n]+|{_SPACES}|\s{{1}}",
        ),
    ),
    Pattern(
        name="bailingmoe",
        steps=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
    ),
    Pattern(
        name="seed-coder",
        steps=(
            rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+",
        ),
    ),
    Pattern(name="ufakzeka", steps=(rf"{_WORD}|\p{{N}}|{_TAIL}",)),
)


def plain_form(regex: str) -> str:
    """One spelling for expressions that match the same."""
    for spelling, plain in _EQUAL_FORMS:
        regex = regex.replace(spelling, plain)
    return _POSSESSIVE.sub("", regex)
