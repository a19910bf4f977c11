"""Reference: the tokenizer as the Hugging Face files define it.

It is `tokenizer.json`, with what transformers adds when it loads a directory: tokens that only
the settings name, and the rule whether texts begin and end with a special token.
Source: transformers 5.23, tokenization_utils_tokenizers.py, `TokenizersBackend.__init__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.gguf.vocabulary.files import (
    TOKENIZER,
    Table,
    TokenizerFiles,
    content_of,
    table,
)
from edgeship.exporters.gguf.vocabulary.vendors import vendor

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MORE: Final = ("additional_special_tokens", "extra_special_tokens")


def open_reference(files: TokenizerFiles) -> Tokenizer:
    """Load `tokenizer.json`, without truncation and padding.

    Raises:
        ConfigurationError: There is none, or the tokenizers package cannot read it.
        RequirementMissing: That package is not installed.
    """
    if not files.has_tokenizer:
        raise files.missing()
    tokenizers = vendor("tokenizers")
    try:
        tokenizer: Tokenizer = tokenizers.Tokenizer.from_file(str(files.directory / TOKENIZER))
    except Exception as error:  # the vendor raises Exception itself
        raise files.broken(what="the tokenizer cannot be read", found=str(error)[:200]) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if files.settings:
        _add_tokens(tokenizer, files.settings)
        _apply_rule(tokenizer, files.settings)
    return tokenizer


def special_contents(settings: Table) -> list[str]:
    """Special tokens that the settings name."""
    entries = [settings.get(f"{role}_token") for role in _ROLES]
    for key in _MORE:
        more = settings.get(key)
        if isinstance(more, dict):
            entries += list(more.values())
        elif isinstance(more, list):
            entries += more
    found = [content_of(entry) for entry in entries]
    return list(dict.fromkeys(content for content in found if content))


def _add_tokens(tokenizer: Tokenizer, settings: Table) -> None:
    """Append the tokens that only the settings have, in the order of their numbers there."""
    held = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    listed = table(settings.get("added_tokens_decoder"))
    numbers = sorted((number for number in listed if number.isdigit()), key=int)
    for number in numbers:
        entry = table(listed[number])
        content = content_of(entry)
        if content and content not in held:
            tokenizer.add_tokens([_added_token(content, entry)])
            held.add(content)
    plain: Table = {"special": True}
    tokens = [_added_token(name, plain) for name in special_contents(settings) if name not in held]
    if tokens:
        tokenizer.add_special_tokens(tokens)


def _added_token(content: str, entry: Table) -> AddedToken:
    flags = {
        name: entry.get(name) is True
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
    token: AddedToken = vendor("tokenizers").AddedToken(content, **flags)
    return token


def _apply_rule(tokenizer: Tokenizer, settings: Table) -> None:
    """Where the settings say what a text begins and ends with, they win over the file."""
    if "add_bos_token" not in settings and "add_eos_token" not in settings:
        return
    bos, eos = (
        content_of(settings.get(f"{role}_token"))
        if settings.get(f"add_{role}_token") is True
        else None
        for role in ("bos", "eos")
    )
    named = [content for content in (bos, eos) if content]
    tokenizer.post_processor = vendor("tokenizers").processors.TemplateProcessing(
        single=[*([bos] if bos else []), "$A", *([eos] if eos else [])],
        special_tokens=[(content, tokenizer.token_to_id(content)) for content in named],
    )
