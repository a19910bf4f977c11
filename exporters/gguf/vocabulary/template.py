"""Chat templates: how a conversation becomes one text."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blueprint import Metadata, ValueType, array, text
from edgeship.exporters.gguf.vocabulary.files import Table, tables
from edgeship.source.hf_config import read_json_object

KEY: Final = "tokenizer.chat_template"
_LIST_KEY: Final = "tokenizer.chat_templates"
_SETTING: Final = "chat_template"
_PLAIN: Final = frozenset(string.ascii_letters + string.digits)


def chat_template(directory: Path, settings: Table) -> Metadata:
    """The keys of the templates: that in the settings, else that in a file of its own.

    Source: gguf-py of llama.cpp, `SpecialVocab` and `GGUFWriter.add_chat_template`. Names of
    several templates are sorted here; the converter writes them in an order that changes.

    Raises:
        ConfigurationError: A file with a template cannot be read.
    """
    template = settings[_SETTING] if _SETTING in settings else _from_files(directory)
    if isinstance(template, str):
        return ((KEY, text(template)),)
    found = [
        (_plain_name(str(entry.get("name", ""))), entry.get("template"))
        for entry in tables(template)
    ]
    named = {name: value for name, value in found if name and isinstance(value, str)}
    default = named.pop("default", None)
    names = sorted(named)
    return (
        *((f"{KEY}.{name}", text(value)) for name, value in named.items()),
        *(((_LIST_KEY, array(ValueType.STRING, names)),) if names else ()),
        *(((KEY, text(default)),) if default is not None else ()),
    )


def _from_files(directory: Path) -> object:
    file = directory / "chat_template.jinja"
    if not file.is_file():
        older = directory / "chat_template.json"
        return read_json_object(older).get(_SETTING) if older.is_file() else None
    default = _read(file)
    others = sorted((directory / "additional_chat_templates").glob("*.jinja"))
    if not others:
        return default
    named = [{"name": other.stem, "template": _read(other)} for other in others]
    return [{"name": "default", "template": default}, *named]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            where=str(file),
            what="the chat template cannot be read",
            expected="a text in UTF-8",
            found=str(error),
            remedy="save the tokenizer again",
        )
        raise ConfigurationError(problem) from error


def _plain_name(name: str) -> str:
    return "".join(letter if letter in _PLAIN else "_" for letter in name)
