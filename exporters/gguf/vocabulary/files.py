"""Files of a tokenizer in a Hugging Face directory, read as untrusted JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.hf_config import CONFIG, read_json_object

TOKENIZER: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
PIECES: Final = "tokenizer.model"
ADDED: Final = "added_tokens.json"
_BYTE_SPACE: Final = "\u0120"
"""What byte-level BPE writes for a space."""
_SAVE: Final = "save it with tokenizer.save_pretrained() of the transformers package"

Table = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """What a directory says of its tokenizer; each file is read when it is first asked for."""

    directory: Path

    @cached_property
    def tokenizer(self) -> Table | None:
        """`tokenizer.json`, the merges as texts; None where there is none.

        Raises:
            ConfigurationError: It cannot be read, or a merge is not two tokens.
        """
        found = self._optional(TOKENIZER)
        model = table((found or {}).get("model"))
        if found is None or not isinstance(model.get("merges"), list):
            return found
        return {**found, "model": {**model, "merges": list(self._merges(model["merges"]))}}

    @cached_property
    def settings(self) -> Table:
        """`tokenizer_config.json`; empty where there is none.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return self._optional(SETTINGS) or {}

    @cached_property
    def config(self) -> Table:
        """`config.json`; empty where there is none.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return self._optional(CONFIG) or {}

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a `tokenizer.json`."""
        return (self.directory / TOKENIZER).is_file()

    @property
    def pieces(self) -> Path | None:
        """The SentencePiece model, where there is one."""
        file = self.directory / PIECES
        return file if file.is_file() else None

    def required_tokenizer(self) -> Table:
        """`tokenizer.json`.

        Raises:
            ConfigurationError: There is none.
        """
        if self.tokenizer is None:
            raise self.missing()
        return self.tokenizer

    def required_model(self) -> Table:
        """The object `model` of `tokenizer.json`: its vocabulary by token, its merges.

        Raises:
            ConfigurationError: There is no such object, or its vocabulary is none.
        """
        model = table(self.required_tokenizer().get("model"))
        if not table(model.get("vocab")) and not isinstance(model.get("vocab"), list):
            raise self.broken(what="it has no vocabulary", expected="an object model with a vocab")
        return model

    def broken(
        self, *, what: str, expected: str | None = None, found: str | None = None
    ) -> ConfigurationError:
        """The error of a `tokenizer.json` that is not as it should be."""
        problem = Problem(
            where=str(self.directory / TOKENIZER),
            what=what,
            expected=expected,
            found=found,
            remedy=_SAVE,
        )
        return ConfigurationError(problem)

    def missing(self) -> ConfigurationError:
        """The error of a directory without a tokenizer."""
        problem = Problem(
            where=str(self.directory),
            what="there is no tokenizer that can be read",
            expected=f"{TOKENIZER}, or for Llama the SentencePiece model {PIECES}",
            remedy=_SAVE,
        )
        return ConfigurationError(problem)

    def _optional(self, name: str) -> Table | None:
        file = self.directory / name
        return read_json_object(file) if file.is_file() else None

    def _merges(self, merges: object) -> Iterator[str]:
        """Two tokens and a space between them; spaces inside of tokens as in the byte alphabet."""
        for merge in merges if isinstance(merges, list) else ():
            if isinstance(merge, str):
                yield merge
            elif isinstance(merge, list) and list(map(type, merge)) == [str, str]:
                yield " ".join(part.replace(" ", _BYTE_SPACE) for part in merge)
            else:
                raise self.broken(what="a merge is not two tokens", found=str(merge)[:80])


def table(value: object) -> Table:
    """The value if it is an object, and an empty one if not."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[Table]:
    """The objects of a list; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def content_of(entry: object) -> str | None:
    """Text of a special token, which is a text or an object with a content."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None
