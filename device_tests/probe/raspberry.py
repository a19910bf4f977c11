"""Raspberry Pi: what its firmware says of its power supply and temperature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SINCE_BOOT: Final = 16
_FLAGS: Final[Mapping[int, str]] = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of `vcgencmd get_throttled`; each has its like 16 bits higher, which stays set until the
next boot (Raspberry Pi documentation, "get_throttled")."""


def throttled_from_text(text: str) -> int | None:
    """Flags of a line `throttled=0x50005`."""
    match = re.search(r"^throttled=0x([0-9a-fA-F]+)\s*$", text, re.MULTILINE)
    return None if match is None else int(match[1], 16)


def temperature_from_text(text: str) -> float | None:
    """Degrees Celsius of a line `temp=48.3'C`."""
    match = re.search(r"^temp=(-?\d+(?:\.\d+)?)'C", text, re.MULTILINE)
    return None if match is None else float(match[1])


def throttling_now(flags: int) -> tuple[str, ...]:
    """What holds the board back at this moment: a latency that is taken now is not its own."""
    return tuple(name for bit, name in _FLAGS.items() if flags >> bit & 1)


def throttling_since_boot(flags: int) -> tuple[str, ...]:
    """What held it back at some time since it booted."""
    return tuple(name for bit, name in _FLAGS.items() if flags >> (bit + _SINCE_BOOT) & 1)
