"""Configuration: `config.json` of a Hugging Face directory, one value at a time, with its type.

llama.cpp's converter reads it through transformers, which fills in what the file leaves out; the
defaults that callers name here are those of transformers' configuration classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.hf_config import CONFIG, read_json_object
from edgeship.source.tensor_name import shown_name

_COUNT_LIMIT: Final = 1 << 31
"""Counts are stored as UINT32 and read by llama.cpp as such; arrays of them are INT32."""


class Configuration:
    """Values of `config.json`; a key that is null counts as left out.

    Attributes:
        where: Its path, for messages.
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self.where = where

    def has(self, key: str) -> bool:
        """Whether the file says anything of it."""
        return self._values.get(key) is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key, in the order of the file."""
        return tuple(self._values)

    def is_set(self, key: str) -> bool:
        """Whether the value is there and not empty, false or 0."""
        return bool(self._values.get(key))

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number, 0 and above.

        Raises:
            ConfigurationError: It is none, or it is left out and has no default.
        """
        value = self._present(key, default)
        if type(value) is not int or not 0 <= value < _COUNT_LIMIT:
            raise self._unlike(key, "a whole number", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; see `count`."""
        value = self._present(key, default)
        if type(value) not in (int, float):
            raise self._unlike(key, "a number", value)
        assert isinstance(value, (int, float))
        if not math.isfinite(value):
            raise self._unlike(key, "a finite number", value)
        return value

    def optional_number(self, key: str) -> float | None:
        """A finite number, or None where the file leaves it out."""
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false; see `count`."""
        value = self._present(key, default)
        if not isinstance(value, bool):
            raise self._unlike(key, "true or false", value)
        return value

    def text(self, key: str, default: str) -> str:
        """A text; see `count`."""
        value = self._present(key, default)
        if not isinstance(value, str):
            raise self._unlike(key, "a text", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the file leaves it out."""
        value = self._present(key, ())
        if not isinstance(value, (list, tuple)) or not all(type(item) is str for item in value):
            raise self._unlike(key, "a list", value)
        return tuple(value)

    def section(self, key: str) -> Configuration | None:
        """A table inside of it, or None where there is none or it is empty."""
        value = self._values.get(key)
        if not value:
            return None
        if not isinstance(value, dict):
            raise self._unlike(key, "a JSON object", value)
        return Configuration(value, f"{self.where}: {key}")

    def per_layer(self, key: str, layers: int) -> tuple[int, ...] | int | None:
        """One count for all layers, or one for each; None where the file leaves it out."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return self.count(key)
        is_right = len(value) == layers and all(
            type(item) is int and 0 <= item < _COUNT_LIMIT for item in value
        )
        if not is_right:
            expected = f"a count, or a list of {layers} counts"
            raise self._unlike(key, expected, value)
        return tuple(value)

    def refusal(
        self, what: str, *, key: str, expected: str | None = None, found: object = None
    ) -> ConfigurationError:
        """The error that says what is wrong with the value of a key."""
        return ConfigurationError(
            Problem(
                where=f"{self.where}: {key}",
                what=what,
                expected=expected,
                found=None if found is None else shown_name(str(found)),
                remedy="correct it, or fetch the model again",
            )
        )

    def _unlike(self, key: str, expected: str, found: object) -> ConfigurationError:
        return self.refusal("the value cannot be used", key=key, expected=expected, found=found)

    def _present(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            what = "the key is missing"
            raise self.refusal(what, key=key)
        return value


def read_configuration(directory: Path) -> Configuration:
    """`config.json` of a directory.

    Raises:
        ConfigurationError: There is none, or it is no JSON object.
    """
    file = directory / CONFIG
    return Configuration(read_json_object(file), str(file))
