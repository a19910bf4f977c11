"""The file types that llama.cpp names, and the kind that most weights of such a file have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeship.errors import UnknownName
from edgeship.exporters.gguf.kinds import Kind


@dataclass(frozen=True, kw_only=True)
class FileType:
    """What a whole file is called.

    Attributes:
        name: As the project file writes it, in lower case.
        number: `llama_ftype`, stored as `general.file_type`.
        kind: Of every weight that no rule of the mixture names.
    """

    name: str
    number: int
    kind: Kind


_ROWS: Final = (
    ("f16", 1, Kind.F16),
    ("q4_0", 2, Kind.Q4_0),
    ("q4_1", 3, Kind.Q4_1),
    ("q8_0", 7, Kind.Q8_0),
    ("q4_k_s", 14, Kind.Q4_K),
    ("q4_k_m", 15, Kind.Q4_K),
    ("q5_k_m", 17, Kind.Q5_K),
    ("q6_k", 18, Kind.Q6_K),
    ("iq4_nl", 25, Kind.IQ4_NL),
    ("iq4_xs", 30, Kind.IQ4_XS),
)
"""Source: llama.h, `llama_ftype`; src/llama-quant.cpp, `llama_ftype_get_default_type`."""

FILE_TYPES: Final[Mapping[str, FileType]] = {
    name: FileType(name=name, number=number, kind=kind) for name, number, kind in _ROWS
}


def file_type_named(name: str) -> FileType:
    """The file type of that name.

    Raises:
        UnknownName: There is none.
    """
    try:
        return FILE_TYPES[name]
    except KeyError:
        raise UnknownName(
            kind="file type", name=name, choices=FILE_TYPES, where="formats.gguf.precisions"
        ) from None
