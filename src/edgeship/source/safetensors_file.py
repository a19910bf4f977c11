"""Safetensors file: opened by its header, its tensors read in parts, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.element import Bits
from edgeship.source.safetensors_header import (
    HEADER_LIMIT_BYTES,
    LENGTH_BYTES,
    StoredTensor,
    parse_header,
    refuse_length,
)
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import Span, TensorEntry

_HEADER: Final = "its header"


class SafetensorsFile:
    """A `TensorSource` over one open file; memory is the header and what a caller holds."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._descriptor = file.fileno()
        self._where = where
        self._tensors = self._read_header()
        self._entries = {name: stored.entry for name, stored in self._tensors.items()}

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Every tensor, in the order of the header."""
        return self._entries

    def read(self, name: str, span: Span) -> Bits:
        """See `TensorSource`."""
        stored = self._tensors[name]
        item_bytes = stored.entry.element.item_bytes
        assert 0 <= span.start <= span.start + span.count <= stored.entry.elements
        offset = stored.offset + span.start * item_bytes
        raw = self._read(span.count * item_bytes, offset)
        if len(raw) != span.count * item_bytes:
            raise self._cut_short(shown_name(name))
        return np.frombuffer(raw, stored.entry.element.bits_dtype)

    def _read_header(self) -> dict[str, StoredTensor]:
        file_bytes = os.fstat(self._descriptor).st_size
        length = self._read(LENGTH_BYTES, 0)
        if len(length) < LENGTH_BYTES:
            raise ConfigurationError(
                Problem(
                    where=self._where,
                    what="the file is too short for a safetensors file",
                    expected=f"at least {LENGTH_BYTES} bytes",
                    found=f"{len(length)} bytes",
                    remedy="fetch or save the file again",
                )
            )
        claimed = int.from_bytes(length, "little")
        if claimed > min(HEADER_LIMIT_BYTES, file_bytes - LENGTH_BYTES):
            refuse_length(self._where, length, file_bytes)
        raw = self._read(claimed, LENGTH_BYTES)
        if len(raw) != claimed:
            raise self._cut_short(_HEADER)
        buffer_bytes = file_bytes - LENGTH_BYTES - claimed
        return parse_header(raw, buffer_bytes=buffer_bytes, where=self._where)

    def _read(self, count: int, offset: int) -> bytes:
        """Bytes at `offset`; fewer only at the end of the file."""
        try:
            raw = os.pread(self._descriptor, count, offset)
            while raw and len(raw) < count:
                more = os.pread(self._descriptor, count - len(raw), offset + len(raw))
                if not more:
                    break
                raw += more
        except OSError as error:
            raise _unreadable(self._where, error) from error
        return raw

    def _cut_short(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            Problem(
                where=self._where,
                what=f"the file was shortened while {what} was read",
                remedy="run again when nothing writes to it",
            )
        )


@contextmanager
def open_safetensors(path: Path) -> Iterator[SafetensorsFile]:
    """The file, with its header checked; closed at the end.

    Raises:
        ConfigurationError: No such file, or its header is not as the format demands.
    """
    where = str(path)
    if not path.is_file():  # a pipe would wait, a directory has no header
        problem = Problem(
            where=where,
            what="no such file" if not path.exists() else "this is no file",
            remedy="name a .safetensors file, or the directory of a Hugging Face model",
        )
        raise ConfigurationError(problem)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(where, error) from error
    with file:
        yield SafetensorsFile(file, where)


def _unreadable(where: str, error: OSError) -> ConfigurationError:
    problem = Problem(
        where=where,
        what="the file cannot be read",
        found=error.strerror,
        remedy="make it readable, or copy it to a disk that works",
    )
    return ConfigurationError(problem)
