"""Safetensors header: parsed strictly, one entry at a time, with nothing trusted.

Source: safetensors README, "Format", and safetensors/src/tensor.rs (`MAX_HEADER_SIZE`, `validate`):
8 bytes with the little-endian length N of the header, N bytes of JSON that begin with `{` and may
end in spaces, then the buffer, which the tensors cover without a hole and without overlap.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.element import ElementType
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorEntry

LENGTH_BYTES: Final = 8
HEADER_LIMIT_BYTES: Final = 100_000_000
"""MAX_HEADER_SIZE of safetensors/src/tensor.rs."""
NAME_LIMIT: Final = 250_000
"""A choice, so that junk cannot fill the memory: whole models of 10^12 weights have about 10^5."""
_ENTRY_LIMIT: Final = 4096
"""Characters of one tensor's entry; an entry with 8 axes of 19 digits has about 250."""
_METADATA: Final = "__metadata__"
_KEYS: Final = frozenset({"dtype", "shape", "data_offsets"})
_ELEMENTS: Final = {str(element): element for element in ElementType}
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_REMEDY: Final = "fetch or save the file again: it is damaged, or no safetensors file"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """An entry of the header, and where its bytes begin, from the start of the file."""

    entry: TensorEntry
    offset: int

    @property
    def end(self) -> int:
        """Where its bytes end."""
        return self.offset + self.entry.size_bytes


def parse_header(raw: bytes, *, buffer_bytes: int, where: str) -> dict[str, StoredTensor]:
    """Tensors by name, in the header's order; `buffer_bytes` follow the header in its file.

    Raises:
        ConfigurationError: The first thing that is not as the format demands.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(where, "the header is no UTF-8", found=f"byte {error.start} of it is none")
    base = LENGTH_BYTES + len(raw)
    tensors: dict[str, StoredTensor] = {}
    for name, value in _Parser(text, where).pairs():
        entry, begin = _entry(name, value, where)
        tensors[name] = StoredTensor(entry=entry, offset=base + begin)
    _check_cover(tensors, base, buffer_bytes, where)
    return tensors


def refuse_length(where: str, length: bytes, file_bytes: int) -> NoReturn:
    """Say what is wrong with a length that exceeds the file or the limit."""
    claimed = int.from_bytes(length, "little")
    found = f"{claimed} bytes in a file of {file_bytes}"
    swapped = int.from_bytes(length, "big")
    if swapped <= min(HEADER_LIMIT_BYTES, file_bytes - LENGTH_BYTES):
        found += f"; big-endian it would be {swapped}, which is the wrong byte order"
    expected = f"at most {HEADER_LIMIT_BYTES} bytes, and no more than the file has"
    _refuse(where, "the length of the header is impossible", expected=expected, found=found)


class _Parser:
    """Reads `{"name": {...}, ...}` and holds one entry at a time, so that junk cannot grow."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0
        self._decode = json.JSONDecoder(object_pairs_hook=_unique_pairs).raw_decode

    def pairs(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Names and entries of all tensors; the metadata is checked and left out."""
        if not self._text.startswith("{"):
            self._fail("the header does not begin with an object", "{")
        for name in self._names():
            if name == _METADATA:
                for _ in self._names():
                    self._string()
            else:
                yield name, self._entry(name)
        if self._text[self._at :].strip(" "):
            self._fail("something follows the header's object", "spaces")

    def _names(self) -> Iterator[str]:
        """The names of an object, each once; the caller reads the value before the next."""
        seen: set[str] = set()
        self._takes("{")
        while not self._takes("}", is_optional=True):
            if seen:
                self._takes(",")
            name = self._string()
            self._takes(":")
            if name in seen:
                self._fail(f"the key {shown_name(name)} appears twice", "each name once")
            if len(seen) == NAME_LIMIT:
                self._fail("the header has too many names", f"at most {NAME_LIMIT}")
            seen.add(name)
            yield name

    def _entry(self, name: str) -> Mapping[str, object]:
        self._skip_space()
        stop = self._text.find("}", self._at, self._at + _ENTRY_LIMIT)
        piece = self._text[self._at : stop + 1] if stop >= 0 else ""
        try:
            value, length = self._decode(piece)
        except (ValueError, RecursionError):  # RecursionError: brackets in brackets
            value, length = None, 0
        if not isinstance(value, dict) or length != len(piece) or set(value) != _KEYS:
            expected = '{"dtype": ..., "shape": [...], "data_offsets": [begin, end]}'
            self._fail(f"the entry of {shown_name(name)} cannot be read", expected)
        self._at = stop + 1
        return value

    def _string(self) -> str:
        self._skip_space()
        if not self._text.startswith('"', self._at):
            self._fail("the header is not the JSON of a safetensors file", "a text in quotes")
        try:
            value, self._at = self._decode(self._text, self._at)
            str(value).encode()  # half a surrogate pair is no text
        except ValueError:
            self._fail("a text in the header cannot be read", "valid JSON")
        return str(value)

    def _takes(self, character: str, *, is_optional: bool = False) -> bool:
        self._skip_space()
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        if not is_optional:
            self._fail("the header is not the JSON of a safetensors file", character)
        return False

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # it matches the empty text
        self._at = match.end()

    def _fail(self, what: str, expected: str) -> NoReturn:
        piece = ascii(self._text[self._at : self._at + 40])
        found = f"{piece} at character {self._at} of the header"
        _refuse(self._where, what, expected=expected, found=found)


def _entry(name: str, value: Mapping[str, object], where: str) -> tuple[TensorEntry, int]:
    where = f"{where}: {shown_name(name)}"
    element = _ELEMENTS.get(str(value["dtype"]))
    if element is None:
        known, found = ", ".join(ElementType), _shown(value["dtype"])
        _refuse(where, "the element type is not known", expected=known, found=found)
    shape, offsets = _naturals(value["shape"]), _naturals(value["data_offsets"])
    if shape is None:
        expected, found = "a list of integers from 0 on", _shown(value["shape"])
        _refuse(where, "the shape is impossible", expected=expected, found=found)
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        expected, found = "[begin, end], begin <= end", _shown(value["data_offsets"])
        _refuse(where, "the offsets are impossible", expected=expected, found=found)
    begin, end = offsets
    wanted = math.prod(shape) * element.item_bytes
    if wanted != end - begin:
        _refuse(
            where,
            "shape and offsets do not agree",
            expected=f"{_shown(wanted)} bytes, which {element} {_shown(list(shape))} takes",
            found=f"{_shown(end - begin)} bytes",
        )
    return TensorEntry(name=name, element=element, shape=shape), begin


def _check_cover(
    tensors: Mapping[str, StoredTensor], base: int, buffer_bytes: int, where: str
) -> None:
    """The tensors cover the buffer from its first byte to its last, each byte once."""
    at = base
    for stored in sorted(tensors.values(), key=lambda stored: (stored.offset, stored.end)):
        if stored.offset != at:
            is_overlap = stored.offset < at
            what = "the tensor overlaps another" if is_overlap else "bytes before it are no tensor"
            named = f"{where}: {shown_name(stored.entry.name)}"
            found = _shown(stored.offset - base)
            _refuse(named, what, expected=f"offset {_shown(at - base)}", found=found)
        at = stored.end
    if at - base != buffer_bytes:
        expected, found = f"{_shown(at - base)} bytes after the header", f"{buffer_bytes} bytes"
        what = "the file is cut short" if at - base > buffer_bytes else "bytes follow the tensors"
        _refuse(where, what, expected=expected, found=found)


def _naturals(value: object) -> tuple[int, ...] | None:
    """The integers of a list of integers from 0 on; None of anything else, true and 1.0 too."""
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        return None
    return tuple(value)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        message = "a key appears twice"
        raise ValueError(message)
    return value


def _shown(value: object) -> str:
    """A value of the header, cut at 60 characters; a number of thousands of digits by its size."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"about 2^{value.bit_length()}"
    try:
        text = ascii(value)
    except ValueError:  # more digits than Python prints
        return "numbers of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(
    where: str, what: str, *, expected: str | None = None, found: str | None = None
) -> NoReturn:
    raise ConfigurationError(
        Problem(where=where, what=what, expected=expected, found=found, remedy=_REMEDY)
    )
