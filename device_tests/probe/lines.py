"""Lines: the facts of a board, and what is wrong with it, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeship.device_tests.probe.raspberry import throttling_now, throttling_since_boot
from edgeship.quantities import text_from_bytes
from edgeship.targets.board_facts import BoardFacts, FoundRuntime

RUNTIME_HEADERS: Final = ("runtime", "version", "state")
_STEADY: Final = "performance"
_HOT_C: Final = 80.0
"""From here on a Raspberry Pi is throttled (its documentation, "Frequency management and thermal
control"); no other board of the catalogue is known to be so earlier."""

_NOT_MEASURED: Final = frozenset({"PMIC-Die"})
"""Zones of older Jetsons that always say 100 °C."""
_TELLING: Final = frozenset(
    {
        *("neon", "vfpv4", "aes", "atomics", "fphp", "asimdhp", "asimddp", "i8mm", "bf16"),
        *("sve", "sve2", "avx", "avx2", "f16c", "fma"),
        *("avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    }
)
"""Features that kernels of neural networks are written for; an x86 CPU names a hundred others."""


def runtime_rows(facts: BoardFacts) -> list[tuple[str, str, str]]:
    """A row under `RUNTIME_HEADERS` for each runtime, usable ones first."""
    found = sorted(facts.runtimes, key=lambda runtime: runtime.problem is not None)
    return [(item.name, item.version or "?", _state(item)) for item in found]


def facts_lines(facts: BoardFacts) -> list[str]:
    """What the board is and has, a line for each subject; what is not known is left out."""
    lines = (
        _joined(facts.model or "a board that does not say its model", _emulated(facts)),
        _joined(_cpu(facts), facts.arch, _features(facts)),
        _joined(_memory(facts), _bytes(facts.disk_free_bytes, "free disk"), _pages(facts)),
        _joined(facts.os, _labelled("kernel", facts.kernel)),
        _joined(_labelled("glibc", facts.glibc), _labelled("GLIBCXX", facts.glibcxx)),
        _joined(_labelled("Python", facts.python), _labelled("numpy", facts.numpy)),
        _joined(
            _labelled("L4T", facts.l4t),
            _labelled("JetPack", facts.jetpack),
            _labelled("TensorRT", facts.tensorrt),
            _labelled("compute capability", facts.sm),
            _labelled("power mode", facts.power_mode),
        ),
        _joined(_labelled("governor", ", ".join(facts.governor)), _frequency(facts)),
        _labelled("temperature", _temperatures(facts)),
    )
    return [line for line in lines if line]


def warning_lines(facts: BoardFacts) -> list[str]:
    """What is wrong, or would falsify a measurement, a line each; then what the probe noted."""
    return [*_wrong(facts), *facts.notes]


def _wrong(facts: BoardFacts) -> Iterator[str]:
    if facts.throttled is not None:
        if now := throttling_now(facts.throttled):
            yield f"now: {', '.join(now)}: what is measured now is not the board's own speed"
        before = [
            name
            for name in throttling_since_boot(facts.throttled)
            if name not in throttling_now(facts.throttled)
        ]
        if before:
            yield f"since it booted: {', '.join(before)}: {_cure(before)}"
    zones = [zone for zone in facts.temperature_c if zone[0] not in _NOT_MEASURED]
    zone, hottest = max(zones, key=lambda item: item[1], default=("", 0.0))
    if hottest >= _HOT_C:
        yield f"{zone} is at {hottest:.0f} °C: let it cool down"
    unsteady = [governor for governor in facts.governor if governor != _STEADY]
    if unsteady:
        yield f"the governor is {', '.join(unsteady)}: latencies ask for {_STEADY}"
    if facts.python is not None and facts.numpy is None:
        yield "its Python has no numpy: no artifact can be tested there"
    if facts.python is not None and not any(item.problem is None for item in facts.runtimes):
        yield "no runtime can be used there"


def _cure(names: list[str]) -> str:
    if "under-voltage" in names:
        return "its power supply is too weak"
    return "it was too hot" if "soft temperature limit" in names else "watch it under load"


def _state(found: FoundRuntime) -> str:
    if found.problem is not None:
        return found.problem
    return f"ready ({found.path})" if found.path else "ready"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _labelled(label: str, value: str | None) -> str:
    return f"{label} {value}" if value else ""


def _emulated(facts: BoardFacts) -> str:
    return "emulated: its times are none of a device" if facts.is_emulated else ""


def _cpu(facts: BoardFacts) -> str:
    name = facts.cpu or "a CPU without a name"
    return name if facts.cores is None else f"{facts.cores} x {name}"


def _features(facts: BoardFacts) -> str:
    if not facts.features:
        return ""
    telling = [feature for feature in facts.features if feature in _TELLING]
    return f"with {' '.join(telling)}" if telling else "base features alone"


def _memory(facts: BoardFacts) -> str:
    available = _bytes(facts.memory_available_bytes, "available")
    return " of ".join(part for part in (available, _bytes(facts.memory_bytes, "memory")) if part)


def _pages(facts: BoardFacts) -> str:
    return "" if facts.page_size is None else f"pages of {facts.page_size} bytes"


def _bytes(count: int | None, what: str) -> str:
    return "" if count is None else f"{text_from_bytes(count)} {what}"


def _frequency(facts: BoardFacts) -> str:
    if facts.frequency_khz is None:
        return ""
    now, least, most = (khz // 1000 for khz in facts.frequency_khz)
    return f"{now} MHz of {least} to {most}"


def _temperatures(facts: BoardFacts) -> str:
    return ", ".join(f"{name} {celsius:.1f} °C" for name, celsius in facts.temperature_c)
