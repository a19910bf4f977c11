"""Health: what this machine has and lacks for building, format by format."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.exporters.registry import EXPORTERS, load_exporter
from edgeship.memory import available_bytes
from edgeship.pipeline.workspace import open_workspace, package_versions
from edgeship.project import Project
from edgeship.runtimes.protocol import RUNTIMES, installed_version, load_runtime
from edgeship.vocabulary import Format

_BASE_BYTES: Final = 450_000_000
"""Peak of a build of ResNet-20, nearly all of it torch and onnx themselves (measured: 447 MB)."""
_MEMORY_FACTOR: Final = 8
"""Of the checkpoint's bytes on top of it (measured: MiniLM, 91 MB in float32, 1,126 MB in all)."""
_CACHE_FACTOR: Final = 2.5
"""Of the checkpoint's bytes in .edgeship/ (measured: MiniLM, 196 MB)."""
_ARTIFACT_FACTOR: Final = 1.3
"""Of the checkpoint's bytes for each target's fp32 and int8 (measured: MiniLM, 109 MB)."""


@dataclass(frozen=True, kw_only=True)
class FormatHealth:
    """What one format needs; `command` installs what is absent, None if nothing is."""

    format: Format
    is_made: bool
    versions: dict[str, str]
    command: str | None


@dataclass(frozen=True, kw_only=True)
class RuntimeHealth:
    """A runtime that artifacts can be measured in; `version` is None where it is not here."""

    name: str
    version: str | None
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes that a build of the project will need at its peak, against what is free."""

    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Health:
    """Facts of this machine; `memory_free_bytes` is None where the system does not say."""

    python: str
    machine: str
    cores: int
    memory_free_bytes: int | None
    disk_free_bytes: int
    formats: tuple[FormatHealth, ...]
    runtimes: tuple[RuntimeHealth, ...]


def examine_machine(directory: Path) -> Health:
    """Look at this machine; nothing is installed, fetched or written."""
    return Health(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        memory_free_bytes=available_bytes(),
        disk_free_bytes=shutil.disk_usage(directory).free,
        formats=tuple(_examine_format(format_) for format_ in Format),
        runtimes=tuple(
            RuntimeHealth(name=name, version=load_runtime(name).version(), remedy=entry.remedy)
            for name, entry in RUNTIMES.items()
        ),
    )


def forecast_build(project: Project) -> Forecast:
    """What a build needs, by the checkpoint's size; a forecast from two measured models."""
    checkpoint = open_workspace(project).checkpoint
    files = [checkpoint] if checkpoint.is_file() else list(checkpoint.rglob("*"))
    size = sum(file.stat().st_size for file in files if file.is_file())
    targets = len(project.targets)
    return Forecast(
        memory_bytes=_BASE_BYTES + _MEMORY_FACTOR * size,
        disk_bytes=int((_CACHE_FACTOR + _ARTIFACT_FACTOR * targets) * size),
    )


def absent_packages(names: tuple[str, ...]) -> list[str]:
    """Those of the distributions that are not installed."""
    return [name for name in names if installed_version(name) is None]


def _examine_format(format_: Format) -> FormatHealth:
    if format_ not in EXPORTERS:
        return FormatHealth(format=format_, is_made=False, versions={}, command=None)
    tools = load_exporter(format_).tools
    absent = absent_packages(tools.packages)
    return FormatHealth(
        format=format_,
        is_made=True,
        versions=package_versions(tools.packages),
        command=f"pip install 'edgeship[{tools.extra}]'" if absent else None,
    )
