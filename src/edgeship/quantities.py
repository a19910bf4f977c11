"""Numbers with units, as people write them in a budget: sizes, durations, points of accuracy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

_QUANTITY: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z%]+)\s*")

# SI prefixes for powers of 1000, IEC 80000-13 prefixes for powers of 1024.
_BYTES: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
# Exact, so that "1.001 kB" is 1001 bytes, and "6 ms" the float64 that is nearest to 6.
_MILLISECONDS: Final[Mapping[str, Fraction]] = {
    "us": Fraction(1, 1000),
    "ms": Fraction(1),
    "s": Fraction(1000),
}
_POINTS: Final[Mapping[str, Fraction]] = {"pt": Fraction(1, 100), "%": Fraction(1, 100)}


def bytes_from_text(text: str) -> int:
    """Bytes from `"400 kB"`, `"1.5 MiB"`; a fraction of a byte is cut off.

    Raises:
        ValueError: The text is no number with one of the units; the message says what would be.
    """
    number, unit = _split(text, _BYTES, example="400 kB")
    return int(number * _BYTES[unit])


def milliseconds_from_text(text: str) -> float:
    """Milliseconds from `"6 ms"`, `"250 us"`, `"1.5 s"`.

    Raises:
        ValueError: As `bytes_from_text`.
    """
    number, unit = _split(text, _MILLISECONDS, example="6 ms")
    return float(number * _MILLISECONDS[unit])


def fraction_from_points(text: str) -> float:
    """A fraction from percentage points: 0.01 from `"1.0 pt"`.

    Raises:
        ValueError: As `bytes_from_text`, or more than 100 points.
    """
    number, unit = _split(text, _POINTS, example="1.0 pt")
    fraction = number * _POINTS[unit]
    if fraction > 1:
        message = "at most 100 pt"
        raise ValueError(message)
    return float(fraction)


def text_from_bytes(count: int) -> str:
    """`count` bytes for people, in SI units with at most one decimal: `334.3 kB`."""
    if count < _BYTES["kB"]:
        return f"{count} B"
    for unit in ("kB", "MB"):
        number = f"{count / _BYTES[unit]:.1f}"
        if number != "1000.0" and count < 1000 * _BYTES[unit]:
            return f"{number} {unit}"
    return f"{count / _BYTES['GB']:.1f} GB"


def _split(
    text: str, units: Mapping[str, int] | Mapping[str, Fraction], *, example: str
) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        message = f'a number with one of the units {", ".join(units)}, like "{example}"'
        raise ValueError(message)
    return Fraction(match[1]), match[2]
