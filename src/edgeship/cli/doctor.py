"""The result of `edgeship doctor`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgeship.cli.result import Result
from edgeship.errors import ExitCode
from edgeship.pipeline.health import (
    Forecast,
    FormatHealth,
    RuntimeHealth,
    examine_machine,
    forecast_build,
)
from edgeship.project import Project
from edgeship.project_file import read_project
from edgeship.quantities import text_from_bytes


def doctor(arguments: argparse.Namespace) -> Result:
    """What this machine has; with a project file, whether that is enough for it; or a board.

    Exit 8 if a format that the project asks for lacks a package.
    """
    if arguments.device is not None:
        from edgeship.cli.board_doctor import board_doctor

        return board_doctor(arguments)
    file = arguments.project
    health = examine_machine(file.absolute().parent)
    project = read_project(file) if file.is_file() else None
    forecast = None if project is None else forecast_build(project)
    asked = _formats_of(project)
    lacking = [item for item in health.formats if item.command and item.format in asked]
    memory = health.memory_free_bytes
    lines = [
        f"python {health.python} on {health.machine}, {health.cores} cores",
        f"free: {'?' if memory is None else text_from_bytes(memory)} memory, "
        f"{text_from_bytes(health.disk_free_bytes)} disk",
    ]
    if forecast is not None:
        lines += _forecast_lines(forecast, memory, health.disk_free_bytes)
    lines += [
        f"to install {item.format}: {item.command}" for item in health.formats if item.command
    ]
    lines += [_runtime_line(item) for item in health.runtimes]
    code = ExitCode.MISSING if lacking else ExitCode.OK
    return Result(
        headers=("format", "state", "packages"),
        rows=[_row(item, is_asked=item.format in asked) for item in health.formats],
        lines=lines,
        value={
            "command": "doctor",
            "exit_code": int(code),
            "exit_codes": [int(code)] if code else [],
            **asdict(health),
            "forecast": None if forecast is None else asdict(forecast),
        },
        exit_code=code,
    )


def _runtime_line(item: RuntimeHealth) -> str:
    if item.version is not None:
        return f"artifacts are measured in {item.name} {item.version}"
    return f"nothing can be measured in {item.name} here; to change that: {item.remedy}"


def _row(item: FormatHealth, *, is_asked: bool) -> tuple[str, str, str]:
    if not item.is_made:
        state = "not made in this version"
    else:
        state = "packages missing" if item.command else "ready"
    packages = ", ".join(f"{name} {version}" for name, version in item.versions.items())
    return str(item.format) + (" (asked for)" if is_asked else ""), state, packages or "-"


def _formats_of(project: Project | None) -> set[str]:
    sections = () if project is None else project.targets.values()
    return {str(chosen.format) for section in sections for chosen in section.formats}


def _forecast_lines(forecast: Forecast, memory: int | None, disk: int) -> list[str]:
    """A forecast by the checkpoint's size, and what is short."""
    lines = [
        f"forecast of a build: {text_from_bytes(forecast.memory_bytes)} memory, "
        f"{text_from_bytes(forecast.disk_bytes)} disk (by the checkpoint's size)"
    ]
    if memory is not None and forecast.memory_bytes > memory:
        lines.append("short of memory: close other programs, or build on a larger machine")
    if forecast.disk_bytes > disk:
        lines.append("short of disk: make room before building")
    return lines
