"""Special tokens: their numbers, and which of them go before and after a text.

Source: gguf-py/gguf/vocab.py of the llama.cpp that llama-cpp-python 0.3.36 holds, `SpecialVocab`.
The gguf package on its own, of version 0.19.0, reads post-processors and normalizers otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeship.exporters.gguf.blueprint import Metadata, boolean, uint32
from edgeship.exporters.gguf.vocabulary.affixes import Affixes, read_affixes
from edgeship.exporters.gguf.vocabulary.files import TokenizerFiles, content_of, table, tables
from edgeship.exporters.gguf.vocabulary.template import chat_template

_ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_NUMBER_KEYS: Final = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
ADD_BOS: Final = "tokenizer.ggml.add_bos_token"
_ADD_KEYS: Final = {
    "bos": ADD_BOS,
    "eos": "tokenizer.ggml.add_eos_token",
    "sep": "tokenizer.ggml.add_sep_token",
}
_CODE_LLAMA_ROWS: Final = 32016
_CODE_LLAMA_EOT: Final = 32010
_SMALL_GRANITE_ROWS: Final = 49152
"""Source of the three: conversion/llama.py of llama.cpp, end of `LlamaModel.set_vocab`."""


def special_metadata(files: TokenizerFiles, limit: int | None) -> Metadata:
    """The keys of special tokens, the chat template and the normalizer.

    Args:
        files: Of the tokenizer.
        limit: Numbers from here on are not those of tokens; None for no limit.
    """
    affixes = read_affixes(files.tokenizer, files.settings)
    numbers = _numbers(files, affixes, (*_ROLES, *affixes.more_roles), limit)
    adds = _adds(files, affixes)
    return (
        *((_NUMBER_KEYS[role], uint32(numbers[role])) for role in numbers if role in _NUMBER_KEYS),
        *((_ADD_KEYS[role], boolean(adds[role])) for role in adds if role in _ADD_KEYS),
        *(chat_template(files.directory, files.settings) if files.settings else ()),
        *_normalizer_metadata(table((files.tokenizer or {}).get("normalizer"))),
    )


def with_family_rules(metadata: Metadata, rows: int) -> Metadata:
    """What the converter adds for two families of Llama, which it knows by their size."""
    known = dict(metadata)
    if rows == _CODE_LLAMA_ROWS:
        known[_NUMBER_KEYS["eot"]] = uint32(_CODE_LLAMA_EOT)
    if rows == _SMALL_GRANITE_ROWS:
        known[_ADD_KEYS["bos"]] = boolean(False)
    return tuple(known.items())


def _numbers(
    files: TokenizerFiles, affixes: Affixes, roles: Sequence[str], limit: int | None
) -> dict[str, int]:
    """Number by role: from the added tokens of `tokenizer.json`, then from `config.json`."""
    number_of: dict[str, object] = {}
    for added in tables((files.tokenizer or {}).get("added_tokens")):
        number_of.setdefault(str(added.get("content")), added.get("id"))
    found: dict[str, int] = {}
    inner = table(files.config.get("text_config"))

    def keep(role: str, number: object) -> None:
        if isinstance(number, int) and number >= 0 and (limit is None or number < limit):
            found.setdefault(role, number)

    for role in roles:
        content = content_of(affixes.settings.get(f"{role}_token"))
        if content is not None:
            keep(role, number_of.get(content))
    for role in roles:
        key = f"{role}_token_id"
        number = files.config.get(key)
        keep(role, inner.get(key) if number is None else number)
    return found


def _adds(files: TokenizerFiles, affixes: Affixes) -> dict[str, bool]:
    """Whether a role is added: as the post-processor says, then as the settings do."""
    adds = dict(affixes.adds)
    for role in (*_ROLES, *affixes.more_roles) if files.settings else ():
        said = affixes.settings.get(f"add_{role}_token")
        if isinstance(said, bool):
            adds.setdefault(role, said)
    return adds


def _normalizer_metadata(normalizer: object) -> Metadata:
    """What llama.cpp does to a text before it looks for WordPiece tokens."""
    found = _normalizer_flags(normalizer)
    return tuple(
        (f"tokenizer.ggml.normalizer.{name}", boolean(found[name]))
        for name in ("lowercase", "strip_accents")
        if name in found
    )


def _normalizer_flags(normalizer: object) -> dict[str, bool]:
    entry = table(normalizer)
    kind = entry.get("type")
    if kind == "Lowercase":
        return {"lowercase": True}
    if kind == "StripAccents":
        return {"strip_accents": True}
    found: dict[str, bool] = {}
    if kind == "BertNormalizer":
        for name in ("lowercase", "strip_accents"):
            value = entry.get(name)
            if isinstance(value, bool):
                found[name] = value
    if kind == "Sequence":
        for inner in tables(entry.get("normalizers")):
            found.update(_normalizer_flags(inner))
    return found
