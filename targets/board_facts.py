"""Board facts: what a probe found on one board, which a target's row only promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class FoundRuntime:
    """A runtime that is on the board.

    Attributes:
        name: As manifests call it: "litert", "tflite_runtime", "onnxruntime", "llama.cpp",
            "tensorrt".
        version: Of the package or program; None where it does not say.
        kind: "python" (a package that the board's Python imports) or "program".
        path: Of the program; None for a package.
        problem: Why it cannot be used though it is there ("needs numpy below 2, there is 2.1");
            None where it can.
    """

    name: str
    version: str | None
    kind: str
    path: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class BoardFacts:
    """One board as it was found. None, or empty, is what could not be read there.

    Attributes:
        at: When, in UTC (RFC 3339).
        model: Of the board: "Raspberry Pi 4 Model B Rev 1.4".
        compatible: Of its device tree, most special first; the SoC is last.
        arch: Machine, as `uname -m` prints it.
        cpu: Name of the cores: "Cortex-A72"; for x86-64 the marketing name.
        features: Linux hwcap names as /proc/cpuinfo has them.
        cores: That are online.
        memory_bytes: MemTotal of /proc/meminfo.
        memory_available_bytes: MemAvailable.
        page_size: In bytes.
        disk_free_bytes: Where runs are put.
        os: PRETTY_NAME of /etc/os-release.
        os_id: ID and VERSION_CODENAME (or VERSION_ID) of it: "debian bookworm".
        kernel: `uname -r`.
        glibc: Like "2.36".
        glibcxx: Newest GLIBCXX symbol version of libstdc++.so.6, like "3.4.30".
        python: Version of the Python that is used there; None where there is none.
        numpy: Version of the numpy that it imports.
        runtimes: Every runtime that was found.
        l4t: L4T release: "36.4.0".
        jetpack: Version of the package nvidia-jetpack.
        tensorrt: Version of the package libnvinfer.
        sm: Compute capability by the device tree: "8.7".
        power_mode: Of a Jetson.
        governor: Scaling governor of each CPU that says one, without doubles, sorted.
        frequency_khz: Current, least and most of the first CPU that says so.
        temperature_c: By thermal zone.
        throttled: Flags of a Raspberry Pi (`vcgencmd get_throttled`), as a number.
        is_emulated: Whether the device tree or the CPU says that QEMU made it.
        notes: What contradicts itself, and what could not be read and why, in one clause each.
    """

    at: str
    model: str | None = None
    compatible: tuple[str, ...] = ()
    arch: str | None = None
    cpu: str | None = None
    features: tuple[str, ...] = ()
    cores: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    page_size: int | None = None
    disk_free_bytes: int | None = None
    os: str | None = None
    os_id: str | None = None
    kernel: str | None = None
    glibc: str | None = None
    glibcxx: str | None = None
    python: str | None = None
    numpy: str | None = None
    runtimes: tuple[FoundRuntime, ...] = ()
    l4t: str | None = None
    jetpack: str | None = None
    tensorrt: str | None = None
    sm: str | None = None
    power_mode: str | None = None
    governor: tuple[str, ...] = ()
    frequency_khz: tuple[int, int, int] | None = None
    temperature_c: tuple[tuple[str, float], ...] = ()
    throttled: int | None = None
    is_emulated: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As in a probe file."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BoardFacts:
        """Inverse of `to_json`, also after JSON made lists of tuples.

        Raises:
            ValueError: Another schema.
            TypeError: Unknown or missing keys, or a value of another kind.
        """
        if value["schema"] != SCHEMA:
            message = f"schema {value['schema']!r}"
            raise ValueError(message)
        keys = {key: _frozen(item) for key, item in value.items() if key != "schema"}
        runtimes = tuple(FoundRuntime(**entry) for entry in value["runtimes"])
        facts = cls(**{**keys, "runtimes": runtimes})
        _require_kinds(facts)
        for runtime in runtimes:
            _require_kinds(runtime)
        return facts


def _require_kinds(part: BoardFacts | FoundRuntime) -> None:
    """Hold every value against what its attribute is declared as; raises TypeError."""
    for name, kind in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if not _is_kind(value, kind):
            message = f"{name} is {value!r}"
            raise TypeError(message)


def _is_kind(value: object, kind: Any) -> bool:  # noqa: ANN401 - types have no common one
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_kind(value, item) for item in inner)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(kinds) and all(map(_is_kind, value, kinds))
    if isinstance(value, bool):  # Python's are integers, too
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _frozen(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
