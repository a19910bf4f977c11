"""TOML tables read with types: a wrong, missing or unknown key becomes a Problem, all at once."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from edgeship.errors import ConfigurationError, Problem, unknown_name

EnumT = TypeVar("EnumT", bound=StrEnum)
QuantityT = TypeVar("QuantityT", int, float)
ValueT = TypeVar("ValueT")

_TYPE_NAMES = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
}


class Table:
    """One TOML table; reading a key marks it as known and checks its type.

    Reading never raises: a wrong value is added to `problems` and None is returned. `close()` adds
    a problem for every key that nobody read.
    """

    def __init__(
        self, value: dict[str, object], *, file: str, path: str, problems: list[Problem]
    ) -> None:
        self._value = value
        self._file = file
        self._path = path
        self._known: set[str] = set()
        self.problems = problems

    def __contains__(self, key: str) -> bool:
        return key in self._value

    @property
    def path(self) -> str:
        """Dotted key of this table in its file."""
        return self._path

    def where(self, key: str = "") -> str:
        """File and dotted key, as people are told it."""
        dotted = ".".join(part for part in (self._path, key) if part)
        return f"{self._file}: {dotted}" if dotted else self._file

    def problem(
        self,
        key: str,
        what: str,
        *,
        remedy: str,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        """Add a problem with one key of this table."""
        self.problems.append(
            Problem(where=self.where(key), what=what, expected=expected, found=found, remedy=remedy)
        )

    def text(self, key: str, *, required: bool = False) -> str | None:
        """A string that is not empty."""
        text = self._typed(key, str, required=required)
        if text == "":
            self.problem(key, "the text is empty", remedy="give it a value or remove the key")
            return None
        return text

    def integer(self, key: str, *, minimum: int = 1) -> int | None:
        """An integer of at least `minimum`."""
        number = self._typed(key, int)
        if number is not None and number < minimum:
            self.problem(
                key,
                "the number is too small",
                expected=f"at least {minimum}",
                found=str(number),
                remedy="raise it",
            )
            return None
        return number

    def boolean(self, key: str) -> bool | None:
        """True or false."""
        return self._typed(key, bool)

    def choice(self, key: str, choices: type[EnumT]) -> EnumT | None:
        """A member of a closed set, by its value."""
        text = self.text(key)
        if text is None:
            return None
        values = [str(member) for member in choices]
        if text not in values:
            kind = choices.__name__.lower()
            self.problems.append(
                unknown_name(kind=kind, name=text, choices=values, where=self.where(key))
            )
            return None
        return choices(text)

    def quantity(self, key: str, parse: Callable[[str], QuantityT]) -> QuantityT | None:
        """A number with its unit, by a parser of `edgeship.quantities`."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problem(
                key,
                "the quantity cannot be read",
                expected=str(error),
                found=repr(text),
                remedy="write number and unit",
            )
            return None

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """A list of finite numbers."""
        return self._list(key, (int, float), "a list of finite numbers", _finite)

    def word_or_texts(self, key: str) -> str | tuple[str, ...] | None:
        """A string, or several in a list."""
        return self.text(key) if isinstance(self._value.get(key), str) else self.texts(key)

    def integers(self, key: str) -> tuple[int, ...] | None:
        """A list of integers, each at least 1."""
        return self._list(key, (int,), "a list of integers from 1 on", _positive)

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...] | None:
        """A list of strings."""
        if required and key not in self._value:
            self._missing(key)
            return None
        return self._list(key, (str,), "a list of texts", str)

    def table(self, key: str, *, required: bool = False) -> Table | None:
        """A table below this one."""
        value = self._typed(key, dict, required=required)
        return None if value is None else self._below(key, value)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """Every table below the table `key`, by name."""
        outer = self.table(key)
        for name in outer._value if outer is not None else ():
            inner = outer.table(name) if outer is not None else None
            if inner is not None:
                yield name, inner

    def array(self, key: str) -> Iterator[Table]:
        """The tables of an array of tables."""
        self._known.add(key)
        values = self._value.get(key, [])
        if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
            self._wrong_type(key, f"tables, written [[{self._path}.{key}]]")
            return
        for index, value in enumerate(values):
            yield self._below(f"{key}[{index}]", value)

    def names(self) -> tuple[str, ...]:
        """Its keys, where they are free."""
        return tuple(self._value)

    def close(self) -> None:
        """Add a problem for every key that was not read."""
        for key in self._value:
            if key not in self._known:
                known = sorted(self._known)
                self.problems.append(
                    unknown_name(kind="key", name=key, choices=known, where=self.where(key))
                )

    def _below(self, key: str, value: dict[str, object]) -> Table:
        path = ".".join(part for part in (self._path, key) if part)
        return Table(value, file=self._file, path=path, problems=self.problems)

    def _typed(self, key: str, kind: type[ValueT], *, required: bool = False) -> ValueT | None:
        self._known.add(key)
        if key not in self._value:
            if required:
                self._missing(key)
            return None
        value = self._value[key]
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            self._wrong_type(key, _TYPE_NAMES.get(kind, "a table"))
            return None
        return value

    def _list(
        self,
        key: str,
        kinds: tuple[type, ...],
        expected: str,
        convert: Callable[..., ValueT],
    ) -> tuple[ValueT, ...] | None:
        values = self._typed(key, list)
        if values is None:
            return None
        if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in values):
            self._wrong_type(key, expected)
            return None
        try:
            return tuple(convert(item) for item in values)
        except (ValueError, OverflowError):
            self._wrong_type(key, expected)
            return None

    def _wrong_type(self, key: str, expected: str) -> None:
        self.problem(
            key,
            "the value is of another kind",
            expected=expected,
            found=repr(self._value[key]),
            remedy="change the value",
        )

    def _missing(self, key: str) -> None:
        self.problem(key, "the key is missing", remedy="add it")


def read_toml(file: Path, *, name: str, problems: list[Problem]) -> Table:
    """The root table of a TOML file; `name` is what people are told of the file.

    Raises:
        ConfigurationError: No such file, or no TOML.
    """
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(
            where=str(file),
            what="the file cannot be read",
            found=error.strerror,
            remedy="name an existing file, or change to its directory",
        )
        raise ConfigurationError(problem) from error
    except (ValueError, RecursionError) as error:  # also of UTF-8, and of numbers without end
        problem = Problem(
            where=str(file), what="this is no TOML", found=str(error), remedy="mend that line"
        )
        raise ConfigurationError(problem) from error
    return Table(value, file=name, path="", problems=problems)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(number)
    return float(number)


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(number)
    return number
