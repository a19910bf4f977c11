"""Keys of a catalogue file: what several of its tables ask of one key."""

from __future__ import annotations

import re
from typing import Final

from edgeship.tables import Table

_VERSION: Final = re.compile(r"\d+(\.\d+)+")


def require_keys(table: Table, *keys: str) -> None:
    """Add a problem for each of `keys` that the table has not."""
    for key in keys:
        if key not in table:
            table.problem(key, "the key is missing", remedy="add it")


def version(table: Table, key: str) -> str | None:
    """Two or more numbers with dots between them, as text; None where the key is missing."""
    text = table.text(key)
    if text is None or _VERSION.fullmatch(text):
        return text
    table.problem(
        key,
        "this is no version",
        expected='numbers with dots between them, like "3.11"',
        found=repr(text),
        remedy="write the version as text",
    )
    return None
