"""Hard texts: where tokenizers that look alike cut differently."""
# ruff: noqa: RUF001 - letters that look like others are what the texts are for

from __future__ import annotations

from typing import Final

HARD_TEXTS: Final = (
    "Hello, world!",
    "a",
    " one leading space, and a trailing one ",
    "two  spaces,   three   and\ta tab\t\tor two",
    "lines\nend\n\nhere\r\nand \n \n  there\n\n\n",
    "3 33 333 3333 33333 1,234,567.89 3.14e-10 0x1F 2026-11-22 10:00:05",
    "I'm we'll you've they'd it's don't we're I'M WE'LL YOU'VE 'twas rock'n'roll o'clock",
    "def f(x: int) -> str:\n    if x != 0 and not (x % 2):\n        return f'{x:>8}'  # ok\n",
    '{"key": [1, 2.5, null, true], "path": "C:\\\\dir\\\\file.txt", "url": "https://a.b/c?d=e&f=g#h"}',
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; } /* !!! */ $x = @y ?: ~z; <b>&amp;</b>",
    "camelCase snake_case SCREAMING_CASE kebab-case CamelCASE iPhone15Pro x86-64",
    "------======= ####### ''''''``````\"\"\"\"......!!!!!!?????? (((())))",
    "我想在apple工作1314151天～。「引用」，中文测试！",
    "こんにちは、世界。",
    "Привет, мир! Καλημέρα שלום مرحبا",
    "naïve façade Übergröße Łódź İstanbul Ấn Straße",
    "नमस\u094dत\u0947 สว\u0e31สด\u0e35",
    "안녕하세요 세계",
    "cafe\u0301 A\u030angstro\u0308m n\u0303 e\u0327\u0301",
    "🚀 (normal) 😶\u200d🌫\ufe0f ✅ 🦙🦙 🇩🇪👨\u200d👩\u200d👧",
    "“quoted” ‘single’ — dash … €100 £5 ½ ² Ⅰ ٣٤ ∞ ∑xᵢ",
    "no\u00a0break\u2003em\u3000wide",
)
"""Numbers, code, runs of spaces and lines, contractions in both cases, writing systems, composed
and combining accents, emoji of several code points, spaces that are not ASCII."""
RARE_TEXTS: Final = (
    "itſ \u212aelvin 'TİS'",
    "ẛ\u0323 q\u0307\u0323 \u2126 ﬁ",
    "a\u0085b\u2028c\u200bd\ufeffe",
)
"""Letters that are equal without regard to case, that have several forms, what may be a space:
libraries of expressions differ in them. No reason to refuse a model."""
