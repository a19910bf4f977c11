"""System: memory, disk, pages, libraries and temperatures, from what Linux and glibc say."""

from __future__ import annotations

import re
import shlex

from edgeship.targets.compatibility_versions import newest


def bytes_from_meminfo(text: str, key: str) -> int | None:
    """One line of /proc/meminfo, like `MemTotal:  3884480 kB`, in bytes."""
    match = re.search(rf"^{re.escape(key)}:\s+(\d+) kB", text, re.MULTILINE)
    return None if match is None else int(match[1]) * 1024


def page_size_from_text(getconf: str, smaps: str) -> int | None:
    """Bytes, by `getconf PAGESIZE`, else by a line `KernelPageSize:   4 kB`."""
    if getconf.strip().isdigit():
        return int(getconf)
    match = re.search(r"KernelPageSize:\s+(\d+) kB", smaps)
    return None if match is None else int(match[1]) * 1024


def free_from_df(text: str) -> int | None:
    """Free bytes by the last line of `df -Pk` (POSIX: the fourth column, in KiB)."""
    match = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%\s", text)
    return None if match is None else int(match[1]) * 1024


def os_from_release(text: str) -> tuple[str | None, str | None]:
    """PRETTY_NAME, and "ID CODENAME" or "ID VERSION", of /etc/os-release (os-release(5))."""
    keys = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            keys[key.strip()] = _unquoted(value)
    version = keys.get("VERSION_CODENAME") or keys.get("VERSION_ID")
    os_id = " ".join(part for part in (keys.get("ID"), version) if part)
    return keys.get("PRETTY_NAME"), os_id or None


def glibc_from_text(getconf: str, ldd: str) -> str | None:
    """Version by `getconf GNU_LIBC_VERSION`, else by the first line of `ldd --version`."""
    match = re.search(r"^glibc (\d+\.\d+)", getconf, re.MULTILINE)
    first = ldd.splitlines()[0] if ldd.strip() else ""
    if match is None and ("GNU" in first or "GLIBC" in first.upper()):
        match = re.search(r"(\d+\.\d+)\s*$", first)
    return None if match is None else match[1]


def is_musl(ldd: str) -> bool:
    """Whether `ldd --version` is that of musl, on which no wheel for glibc loads."""
    return ldd.strip().startswith("musl libc")


def newest_glibcxx(text: str) -> str | None:
    """The highest of the symbol versions `GLIBCXX_3.4.30`, one a line."""
    return newest(re.findall(r"^GLIBCXX_(\d+(?:\.\d+)+)$", text, re.MULTILINE))


def zones_from_text(text: str) -> tuple[tuple[str, float], ...]:
    """Degrees Celsius by zone, of lines `MILLIDEGREES TYPE`; zones that did not answer are out.

    Jetsons have zones without a sensor: some cannot be read, some say -256 degrees.
    """
    zones = []
    for line in text.splitlines():
        milli, _, name = line.partition(" ")
        if re.fullmatch(r"-?\d+", milli) and int(milli) > -100_000:
            zones.append((name or "?", int(milli) / 1000))
    return tuple(zones)


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # an odd quote: the file is a person's
        return value.strip()
