"""Versions: numbers with dots between them, compared as their makers mean them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_VERSION: Final = re.compile(
    r"\s*v?(?P<numbers>[0-9]{1,18}(?:\.[0-9]{1,18})*)(?![0-9])(?P<rest>.*)", re.DOTALL
)
# What PEP 440 and semantic versioning call a pre-release. A letter alone counts only where it
# touches the number: "5.1.2-b104" is a Debian revision.
_PRE_RELEASE: Final = re.compile(r"[._-]?(?:rc|alpha|beta|dev|preview|pre)(?![a-z])|[abc][0-9]")


def version_key(text: str) -> tuple[tuple[int, ...], int] | None:
    """Sorts versions; None where the text does not begin with a number.

    "2.9" is before "2.14", "1.17.0rc1" before "1.17.0", and "2.0" is "2.0.0". What stands behind
    the numbers otherwise ("+cu12", "-9+deb12u4", ".post1") does not count.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    numbers = [int(number) for number in match["numbers"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), 0 if _PRE_RELEASE.match(match["rest"].lower()) else 1


def is_older(found: str | None, needed: str) -> bool:
    """Whether `found` is known to be before `needed`: False where one of them cannot be read."""
    found_key = None if found is None else version_key(found)
    needed_key = version_key(needed)
    return found_key is not None and needed_key is not None and found_key < needed_key


def newest(versions: Iterable[str | None]) -> str | None:
    """The last of those that are there and can be read; None where none can."""
    keys = {key: text for text in versions if text and (key := version_key(text)) is not None}
    return keys[max(keys)] if keys else None
