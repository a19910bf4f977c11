"""The catalogue as the result of a command."""

from __future__ import annotations

import argparse

from edgeship.cli.result import Result, command_value
from edgeship.targets import Target, load_target, target_names


def catalogue(arguments: argparse.Namespace) -> Result:
    """The catalogue, or one row with the source of each fact."""
    name = arguments.name
    rows = [load_target(item) for item in ([name] if name else target_names())]
    lines = []
    if name:
        lines = [
            f"{source.key}: {source.url}{f' ({source.note})' if source.note else ''}"
            for source in rows[0].sources
        ]
    return Result(
        headers=("target", "board", "cpu", "memory", "os", "formats"),
        rows=[_target_row(target) for target in rows],
        lines=lines,
        value=command_value("targets", [])
        | {"targets": [_target_value(target) for target in rows]},
    )


def _target_row(target: Target) -> tuple[str, ...]:
    formats = [
        f"{name} {'/'.join(facts.precisions)}"
        for name, facts in target.formats.items()
        if facts.precisions
    ]
    return (
        target.name,
        target.board,
        f"{target.cpu.cores} {target.cpu.arch}",
        f"{target.memory_bytes / 2**30:.0f} GiB",
        target.os.id,
        ", ".join(formats),
    )


def _target_value(target: Target) -> dict[str, object]:
    return {
        "name": target.name,
        "board": target.board,
        "memory_bytes": target.memory_bytes,
        "cpu": {
            "arch": str(target.cpu.arch),
            "cores": target.cpu.cores,
            "features": list(target.cpu.features),
        },
        "gpu": None
        if target.gpu is None
        else {"sm": target.gpu.sm, "dla": target.gpu.dla, "precisions": [*target.gpu.precisions]},
        "os": {"id": target.os.id, "image": target.os.image, "choices": list(target.os_choices)},
        "formats": {
            str(name): {
                "precisions": list(facts.precisions),
                "runtimes": [f"{item.name} {item.version}" for item in facts.runtimes],
                "reason": facts.reason,
            }
            for name, facts in target.formats.items()
        },
        "sources": [{"key": source.key, "url": source.url} for source in target.sources],
    }
