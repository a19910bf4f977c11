"""Pre-tokenizers: the type that llama.cpp knows, by what `tokenizer.json` does to a text.

The converter of llama.cpp knows it by a hash of token numbers, which every new vocabulary breaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.vocabulary.files import (
    TOKENIZER,
    Table,
    TokenizerFiles,
    content_of,
    table,
    tables,
)
from edgeship.exporters.gguf.vocabulary.patterns import (
    DIGIT,
    DIGITS,
    GPT2,
    PATTERNS,
    PUNCTUATION,
    Pattern,
    plain_form,
)

_DEEPSEEK_BOS: Final = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
_DEEPSEEK_QWEN: Final = "deepseek-r1-qwen"
"""Another name of qwen2, which the converter writes for DeepSeek's distills of Qwen."""
_CONVERTER: Final = 'set converter = "PATH/convert_hf_to_gguf.py" of a llama.cpp that knows it'
_COMPOSED: Final = "NFC"


def pretokenizer_type(files: TokenizerFiles) -> str:
    """`tokenizer.ggml.pre` of a byte-level BPE tokenizer.

    Raises:
        ConfigurationError: There is no `tokenizer.json`.
        ExportFailed: llama.cpp does not cut texts as this tokenizer does, naming the expressions.
    """
    tokenizer = files.required_tokenizer()
    _check_model(files, table(tokenizer.get("model")))
    _check_normalizer(files, tokenizer)
    found = find_pattern(files, tokenizer)
    if found.name == "qwen2" and _is_deepseek(files):
        return _DEEPSEEK_QWEN
    return found.name


def find_pattern(files: TokenizerFiles, tokenizer: Table) -> Pattern:
    """The pattern of these steps; of several, that which takes whole words or not, as told.

    Raises:
        ExportFailed: There is none.
    """
    entry = table(tokenizer.get("pre_tokenizer"))
    steps = tuple(plain_form(step) for step in _steps(files, entry))
    known = [p for p in PATTERNS if tuple(plain_form(step) for step in p.steps) == steps]
    if not known or "ByteLevel" not in _types(entry):
        names = ", ".join(dict.fromkeys(pattern.name for pattern in PATTERNS))
        found = " then ".join(steps) or "no expression"
        raise _refusal(files, "pre_tokenizer", f"a byte-level one that cuts like {names}", found)
    whole = table(tokenizer.get("model")).get("ignore_merges") is True
    return next((pattern for pattern in known if pattern.takes_whole_words == whole), known[0])


def adds_bos(pre: str) -> bool:
    """Whether llama.cpp begins texts with a token where the file does not say that it must not."""
    return any(pattern.name == pre and pattern.adds_bos for pattern in PATTERNS)


def _steps(files: TokenizerFiles, entry: Table) -> Iterator[str]:
    """Regular expressions of a pre-tokenizer, in order."""
    match entry.get("type"):
        case "Sequence":
            for inner in tables(entry.get("pretokenizers")):
                yield from _steps(files, inner)
        case "ByteLevel":
            if entry.get("add_prefix_space") is True:
                expected, found = "ByteLevel without add_prefix_space", "add_prefix_space"
                raise _refusal(files, "pre_tokenizer", expected, found)
            if entry.get("use_regex", True) is True:
                yield GPT2
        case "Digits":
            yield DIGIT if entry.get("individual_digits") is True else DIGITS
        case "Punctuation" if entry.get("behavior") == "Contiguous":
            yield PUNCTUATION
        case "Split" if _isolates(entry):
            regex = table(entry.get("pattern")).get("Regex")
            yield regex if isinstance(regex, str) else f"the text {entry.get('pattern')}"
        case _:
            yield str(dict(entry))[:200]


def _isolates(entry: Table) -> bool:
    """Whether matches become pieces of their own; a pattern for all text may drop the rest."""
    behavior, inverts = entry.get("behavior"), entry.get("invert") is True
    return behavior == "Isolated" or (behavior == "Removed" and inverts)


def _types(entry: Table) -> set[str]:
    """Types of a normalizer or pre-tokenizer and of all inside of it."""
    inner = [*tables(entry.get("pretokenizers")), *tables(entry.get("normalizers"))]
    found = {str(entry["type"])} if "type" in entry else set()
    return found.union(*(_types(other) for other in inner))


def _check_model(files: TokenizerFiles, model: Table) -> None:
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") is True:
        found = f"{model.get('type')}{' with byte_fallback' if model.get('byte_fallback') else ''}"
        raise _refusal(files, "model", "byte-level BPE", found)


def _check_normalizer(files: TokenizerFiles, tokenizer: Table) -> None:
    unknown = _types(table(tokenizer.get("normalizer"))) - {"Sequence", _COMPOSED}
    if unknown:
        raise _refusal(files, "normalizer", "none, or NFC", ", ".join(sorted(unknown)))


def _is_deepseek(files: TokenizerFiles) -> bool:
    return content_of(files.settings.get("bos_token")) == _DEEPSEEK_BOS


def _refusal(files: TokenizerFiles, key: str, expected: str, found: str) -> ExportFailed:
    problem = Problem(
        where=f"{files.directory / TOKENIZER}: {key}",
        what="llama.cpp has no tokenizer that does the same to a text",
        expected=expected,
        found=found,
        remedy=_CONVERTER,
    )
    return ExportFailed(problem)
